"""Where a device's outputs go: the recording and the spool, with the uplink behind it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from syncline.edge.clips import ChosenClips
from syncline.edge.config import EdgeConfig
from syncline.edge.link_watch import LinkWatch
from syncline.edge.queued_segments import QueuedSegments
from syncline.edge.records import Output
from syncline.edge.sinks import RecorderSink, Sink, SpoolSink
from syncline.errors import SynclineError
from syncline.link import KeyPair, LinkState, Uplink, load_keypair, load_public
from syncline.link.wire import Notice
from syncline.log.recorder import Recorder
from syncline.messages import syncline_pb2 as pb
from syncline.spool import Spool
from syncline.timebase import NS_PER_S, RawClock

_log = logging.getLogger(__name__)

MB = 1_000_000
CLIP_SHARE = 0.1
"""Of the recording's quota, for chosen pictures that wait to be sent."""
TURN_NS = NS_PER_S // 4
CLOSING_NS = 5 * NS_PER_S
"""Longest that segments are read in one turn, and at the end, for one segment more: a whole ring
takes minutes, in which the daemon would neither report nor stop nor pet its watchdog."""


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
        self._clock = clock
        self._ring = Path(config.device.data) / "recording" / "ring"
        self._not_queued = 0
        self._handed: set[Path] = set()
        self._clips: ChosenClips | None = None
        self._upload_problem = ""
        self.uplink: Uplink | None = None
        self._spool: Spool | None = None
        self._recorder: Recorder | None = None
        keys, server_key = _keys(config)
        with ExitStack() as stack:
            stack.callback(self.close)
            self._open(clock, keys, server_key, on_notice)
            stack.pop_all()

    def _open(
        self,
        clock: RawClock,
        keys: KeyPair | None,
        server_key: str,
        on_notice: Callable[[str], None],
    ) -> None:
        link, data = self._config.link, Path(self._config.device.data)
        self._recorder = self._open_recorder(data / "recording", clock)
        # Before the first message: what is in the ring now was there when its name was remembered.
        self._queued = QueuedSegments(data / "queued-segments")
        self._queued.keep(self._segments())
        self._clips = self._make_clips(data / "recording")
        self._link_watch = LinkWatch(link.endpoint, Path(link.key), clock.raw_ns())
        if keys is not None:
            quota = round(link.quota_mb * MB)
            self._spool = Spool(data / "spool", quota_bytes=quota, clock=clock)

            def told(notice: Notice) -> None:
                on_notice(notice.channel)

            self.uplink = Uplink(
                self._spool, link.endpoint, server_key, keys, clock, on_notice=told
            )
        self._sinks: list[Sink] = [
            *([RecorderSink(self._recorder)] if self._recorder else []),
            *([SpoolSink(self._spool)] if self._spool else []),
        ]

    def _open_recorder(self, folder: Path, clock: RawClock) -> Recorder | None:
        section = self._config.record
        if not section.enabled:
            return None
        share = CLIP_SHARE if self._cuts_clips else 0.0
        return Recorder(
            folder,
            clock=clock,
            device=self._config.device.name,
            segment_s=section.segment_s,
            quota_bytes=round(section.quota_mb * MB * (1.0 - share)),
        )

    @property
    def _cuts_clips(self) -> bool:
        """Whether chosen pictures are kept apart: where all of them are sent, they need not be."""
        record = self._config.record
        shadowed = any(model.shadow for model in self._config.models)
        whole = self._config.link.upload_images is True and bool(self._config.link.endpoint)
        return shadowed and record.enabled and record.images and not whole

    def _make_clips(self, folder: Path) -> ChosenClips | None:
        if not self._cuts_clips:
            return None
        cameras = [camera.name for camera in self._config.camera]
        limit = round(self._config.record.quota_mb * MB * CLIP_SHARE)
        return ChosenClips(self._ring, folder / "chosen", cameras, limit)

    def start(self) -> None:
        """Begin to send."""
        if self.uplink is not None:
            self.uplink.start()

    def emit(self, output: Output) -> None:
        """Record and spool one output; any thread."""
        for sink in self._sinks:
            sink.emit(output)

    def upload_closed_segments(self, *, closing: bool = False) -> None:
        """Queue what is complete for sending, oldest first: camera segments, or chosen pictures.

        What cannot be queued is counted, shown in health, and tried again with the next call, as is
        what there was no time for; after the end, by the next start.
        """
        mode = self._config.link.upload_images if self.uplink is not None else False
        until_ns = self._clock.raw_ns() + (CLOSING_NS if closing else TURN_NS)
        works: list[Callable[[], None]] = []
        if mode is True:
            works.append(partial(self._queue_segments, until_ns, closing=closing))
        if self._clips is not None:
            works.append(partial(self._cut_segments, self._clips, until_ns, closing=closing))
            if mode == "chosen":
                works.append(partial(self._queue_clips, self._clips))
        if works:
            works.append(self._queued.save)
        problem = ""
        for work in works:
            try:
                work()
            except (SynclineError, OSError) as error:
                problem = problem or str(error)
        if problem and problem != self._upload_problem:
            _log.error("uploads: %s", problem)
        self._upload_problem = problem

    def _segments(self) -> list[str]:
        """Names of the segments in the ring, oldest first."""
        if not self._ring.is_dir():
            return []
        return sorted(path.name for path in self._ring.iterdir() if path.is_dir())

    def _queue_segments(self, until_ns: int, *, closing: bool) -> None:
        assert self.uplink is not None
        names = self._segments()
        self._queued.keep(names)
        for name in names if closing else names[:-1]:
            path = self._ring / name / "cam.mcap"
            if name in self._queued:
                continue
            if self._clock.raw_ns() >= until_ns:
                return
            if path.is_file():
                try:
                    meta = {"kind": "camera-segment", "segment": name}
                    self.uplink.upload(path, name=f"{name}/cam.mcap", meta=meta)
                except SynclineError:
                    self._not_queued += 1
                    raise
            self._queued.add(name)

    def _cut_segments(self, clips: ChosenClips, until_ns: int, *, closing: bool) -> None:
        names = self._segments()
        self._queued.keep(names)
        closed = names if closing else names[:-1]
        for name in closed:
            if self._clock.raw_ns() >= until_ns:
                return
            if name not in self._queued:
                if not clips.take(name, closed, final=closing):
                    return
                self._queued.add(name)

    def _queue_clips(self, clips: ChosenClips) -> None:
        """Hand over what was cut, and delete what the collector has."""
        assert self.uplink is not None
        for path in clips.files():
            if path not in self._handed:
                meta = {"kind": "camera-segment", "segment": path.stem, "part": "chosen"}
                try:
                    self.uplink.upload(path, name=f"{path.stem}/chosen.mcap", meta=meta)
                except SynclineError:
                    self._not_queued += 1
                    raise
                self._handed.add(path)
        self._delete_sent()

    def _delete_sent(self) -> None:
        assert self.uplink is not None
        for path in [path for path in self._handed if not self.uplink.uploads.is_waiting(path)]:
            path.unlink(missing_ok=True)
            self._handed.discard(path)

    def add_to(self, message: pb.Health) -> None:
        """Add what recorder, spool and link say of themselves to a health message."""
        self._count(message)
        problems = self._problems()
        if problems:
            message.state = "degraded"
            message.detail = "; ".join(filter(None, [message.detail, *problems]))

    def _problems(self) -> list[str]:
        said = {"uploads": self._upload_problem}
        if self._recorder is not None:
            said["recorder"] = self._recorder.stats().error
        if self._spool is not None and self.uplink is not None:
            link = self.uplink.stats()
            said["spool"] = self._spool.stats().failing
            said["link"] = self._link_watch.step(
                is_open=link.state is LinkState.OPEN,
                problem=link.problem,
                raw_ns=self._clock.raw_ns(),
            )
        return [f"{part}: {text}" for part, text in said.items() if text]

    def _count(self, message: pb.Health) -> None:
        counters = message.counters
        if self._recorder is not None:
            stats = self._recorder.stats()
            counters["record.dropped"] = sum(stats.dropped.values())
            counters["record.lost"] = sum(stats.lost.values())
        if self._clips is not None:
            counters["chosen.pictures"] = self._clips.pictures
            counters["chosen.waiting"] = len(self._clips.files())
            counters["chosen.lost"] = self._clips.lost
        if self._spool is None or self.uplink is None:
            return
        spool, link, uploads = self._spool.stats(), self.uplink.stats(), self.uplink.uploads
        message.spool_bytes = spool.total_bytes
        counters["spool.backlog"] = spool.backlog
        for link_class, stats_of in spool.classes.items():
            lost = stats_of.dropped + stats_of.refused + stats_of.damaged
            counters[f"spool.lost.{link_class.name.lower()}"] = lost
        counters["link.sent"] = link.sent_records
        counters["link.acked"] = link.acked_records
        counters["link.down"] = int(link.state is not LinkState.OPEN)
        counters["upload.waiting"] = uploads.waiting
        counters["upload.done"] = uploads.done
        counters["upload.failed"] = uploads.failed
        counters["upload.not_queued"] = self._not_queued

    def close(self) -> None:
        """Sync the recording, send what can be sent in time, leave the rest in the spool.

        Every part is closed, whatever the others say.

        Raises:
            StorageError: Records were lost because the disk took no more.
        """
        with ExitStack() as stack:
            if self._spool is not None:
                stack.callback(self._spool.close)
            if self.uplink is not None:
                stack.callback(self._delete_sent)
                stack.callback(self.uplink.close, self._config.link.drain_s)
            stack.callback(self.upload_closed_segments, closing=True)
            if self._recorder is not None:
                stack.callback(self._recorder.close)


def _keys(config: EdgeConfig) -> tuple[KeyPair | None, str]:
    if not config.link.endpoint:
        return None, ""
    return load_keypair(Path(config.link.key)), load_public(Path(config.link.server_key)).public
