"""`python -m syncline`."""

from syncline.cli import entry

entry()
