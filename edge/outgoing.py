"""Where a device's outputs go: the recording and the spool, with the uplink behind it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from syncline.edge.config import EdgeConfig
from syncline.edge.records import Output
from syncline.edge.sinks import RecorderSink, Sink, SpoolSink
from syncline.errors import SynclineError
from syncline.link import KeyPair, Uplink, load_keypair, load_public
from syncline.link.wire import Notice
from syncline.log.recorder import Recorder
from syncline.messages import syncline_pb2 as pb
from syncline.spool import Spool
from syncline.timebase import RawClock

_log = logging.getLogger(__name__)

MB = 1_000_000


class Outgoing:
    """Recorder, spool and uplink of a device; a full disk or an absent collector stops nothing.

    Args:
        config: `edge.toml`.
        clock: Raw clock.
        on_notice: Told the channel of each notice, on the link's thread.

    Raises:
        StorageError: The data folder cannot be used.
        ConfigError: A key file cannot be used.
    """

    def __init__(
        self, config: EdgeConfig, clock: RawClock, on_notice: Callable[[str], None]
    ) -> None:
        self._config = config
        data = Path(config.device.data)
        self.uplink: Uplink | None = None
        self._spool: Spool | None = None
        keys, server_key = _keys(config)
        self._recorder = self._open_recorder(data / "recording", clock)
        if keys is not None:
            quota = round(config.link.quota_mb * MB)
            self._spool = Spool(data / "spool", quota_bytes=quota, clock=clock)

            def told(notice: Notice) -> None:
                on_notice(notice.channel)

            self.uplink = Uplink(
                self._spool, config.link.endpoint, server_key, keys, clock, on_notice=told
            )
        self._sinks: list[Sink] = [
            *([RecorderSink(self._recorder)] if self._recorder else []),
            *([SpoolSink(self._spool)] if self._spool else []),
        ]
        self._uploaded = data / "uploaded-segment"

    def _open_recorder(self, folder: Path, clock: RawClock) -> Recorder | None:
        section = self._config.record
        if not section.enabled:
            return None
        return Recorder(
            folder,
            clock=clock,
            device=self._config.device.name,
            segment_s=section.segment_s,
            quota_bytes=round(section.quota_mb * MB),
        )

    def start(self) -> None:
        """Begin to send."""
        if self.uplink is not None:
            self.uplink.start()

    def emit(self, output: Output) -> None:
        """Record and spool one output; any thread."""
        for sink in self._sinks:
            sink.emit(output)

    def pin(self, pre_s: float, post_s: float, reason: str) -> None:
        """Keep the recording around now, out of the ring's reach.

        Raises:
            QuotaError: Pins already hold their share of the quota.
        """
        if self._recorder is not None:
            self._recorder.pin(pre_s, post_s, reason)

    def upload_closed_segments(self, *, closing: bool = False) -> None:
        """Queue camera segments that are complete for sending."""
        if self.uplink is None or not self._config.link.upload_images:
            return
        ring = Path(self._config.device.data) / "recording" / "ring"
        done = self._uploaded.read_text("ascii").strip() if self._uploaded.exists() else ""
        folders = sorted(p for p in ring.iterdir() if p.is_dir()) if ring.is_dir() else []
        for folder in folders if closing else folders[:-1]:
            if folder.name <= done:
                continue
            path = folder / "cam.mcap"
            if path.is_file():
                self._upload(path, folder.name)
            self._uploaded.write_text(folder.name + "\n", "ascii")

    def _upload(self, path: Path, segment: str) -> None:
        assert self.uplink is not None
        try:
            meta = {"kind": "camera-segment", "segment": segment}
            self.uplink.upload(path, name=f"{segment}/cam.mcap", meta=meta)
        except SynclineError as error:
            _log.error("camera segment %s is not sent: %s", segment, error)

    def add_to(self, message: pb.Health) -> None:
        """Add what recorder, spool and link say of themselves to a health message."""
        problems = []
        if self._recorder is not None:
            stats = self._recorder.stats()
            message.counters["record.dropped"] = sum(stats.dropped.values())
            message.counters["record.lost"] = sum(stats.lost.values())
            problems += [stats.error] if stats.error else []
        if self._spool is not None and self.uplink is not None:
            spool, link = self._spool.stats(), self.uplink.stats()
            message.spool_bytes = spool.total_bytes
            message.counters["spool.backlog"] = spool.backlog
            for link_class, stats_of in spool.classes.items():
                lost = stats_of.dropped + stats_of.refused + stats_of.damaged
                message.counters[f"spool.lost.{link_class.name.lower()}"] = lost
            problems += [spool.failing] if spool.failing else []
            message.counters["link.sent"] = link.sent_records
            message.counters["link.acked"] = link.acked_records
            if link.problem:
                message.counters["link.down"] = 1
        if problems:
            message.state = "degraded"
            message.detail = "; ".join(filter(None, [message.detail, *problems]))

    def to_prometheus(self) -> str:
        """Recorder and spool as Prometheus text."""
        message = pb.Health()
        self.add_to(message)
        lines = [f"syncline_edge_spool_bytes {message.spool_bytes}"]
        lines += [
            f'syncline_edge_outgoing_total{{counter="{name}"}} {count}'
            for name, count in sorted(message.counters.items())
        ]
        return "\n".join(lines) + "\n"

    def close(self) -> None:
        """Sync the recording, send what can be sent in time, leave the rest in the spool."""
        if self._recorder is not None:
            self._recorder.close()
        if self.uplink is not None and self._spool is not None:
            self.upload_closed_segments(closing=True)
            self.uplink.close(self._config.link.drain_s)
            self._spool.close()


def _keys(config: EdgeConfig) -> tuple[KeyPair | None, str]:
    if not config.link.endpoint:
        return None, ""
    return load_keypair(Path(config.link.key)), load_public(Path(config.link.server_key)).public
