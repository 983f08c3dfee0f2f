"""The daemon as a whole: what fails while it is built leaves nothing open."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from syncline.edge import daemon
from syncline.edge.config import EdgeConfig
from syncline.edge.outgoing import Outgoing
from syncline.errors import ConfigError
from syncline.timebase import OsClock


def test_a_part_that_cannot_be_built_gives_the_data_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ConfigError("$.time contradicts itself")

    raw = {
        "device": {"name": "a", "data": str(tmp_path / "data")},
        "camera": [{"name": "c", "kind": "synthetic"}],
        "time": {"page": "", "status": ""},
    }
    config = msgspec.convert(raw, EdgeConfig)
    monkeypatch.setattr(daemon, "TimePart", refuse)
    with pytest.raises(ConfigError):
        daemon.EdgeDaemon(config, OsClock())
    # The recorder holds a lock on its folder until it is closed.
    Outgoing(config, OsClock(), lambda _: None).close()
