"""`python -m syncline`."""

import sys

from syncline.cli import main

sys.exit(main())
