"""`syncline model add` and `promote` say when no device will take what they were given."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncline.cli import model_registry

from .test_updater import make_bundle


def test_an_unsigned_bundle_is_warned_of_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    signed, unsigned = tmp_path / "signed", tmp_path / "unsigned"
    make_bundle(signed, "1.0.0")
    make_bundle(unsigned, "1.1.0")
    (unsigned / "manifest.sig").unlink()
    data = tmp_path / "data"
    data.mkdir()
    for folder, version, lines in ((signed, "1.0.0", 0), (unsigned, "1.1.0", 1)):
        model_registry.add(folder, data=data)
        added = capsys.readouterr().err.splitlines()
        model_registry.promote("det", version, channel="production", data=data)
        promoted = capsys.readouterr().err.splitlines()
        assert len(added) == len(promoted) == lines
        for line in (*added, *promoted):
            assert "devices refuse it until signed: syncline model sign" in line
