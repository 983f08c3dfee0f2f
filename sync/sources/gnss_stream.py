"""A receiver's byte stream, NMEA and UBX mixed, into measurements. No I/O."""

from __future__ import annotations

from dataclasses import replace

from syncline.sync.floor import Floor
from syncline.sync.measurement import Measurement
from syncline.sync.sources.gnss_gate import GnssEpoch, GnssGate, InBand, Reference
from syncline.sync.sources.nmea import NmeaEpochs, NmeaReader
from syncline.sync.sources.source import GnssSignals
from syncline.sync.sources.ubx import PulseAhead, TimeMark, UbxEpochs, UbxReader

BITS_PER_BYTE = 10


class GnssStream:
    """Bytes of one receiver in, measurements out.

    Where a receiver speaks both protocols, UBX tells the time (it knows about leap seconds) and
    NMEA only adds to the sky.

    Args:
        name: Source name.
        floor: Earliest possible time.
        baud: Line speed, to date the first byte of a chunk; 0 for a file or a socket.
        in_band: Message latency.
        trust_leap: The receiver keeps leap seconds over power-off.
        reference: The service's own estimate.
    """

    def __init__(
        self,
        name: str,
        floor: Floor,
        *,
        baud: int = 0,
        in_band: InBand | None = None,
        trust_leap: bool = False,
        reference: Reference | None = None,
    ) -> None:
        byte_ns = BITS_PER_BYTE * 1_000_000_000 // baud if baud else 0
        self.gate = GnssGate(name, floor, in_band, trust_leap=trust_leap, reference=reference)
        self.ubx = UbxEpochs(floor)
        self._nmea = NmeaEpochs()
        self._nmea_reader = NmeaReader(byte_ns)
        self._ubx_reader = UbxReader(byte_ns)
        self._ubx_tells_time = False

    @property
    def bad(self) -> int:
        """Sentences and frames with a wrong checksum or length."""
        return self._nmea_reader.bad + self._ubx_reader.bad

    def feed(self, data: bytes, raw_ns: int) -> list[Measurement]:
        """Take the bytes read at `raw_ns`."""
        epochs: list[GnssEpoch] = []
        for frame in self._ubx_reader.feed(data, raw_ns):
            epoch = self.ubx.take(frame)
            if epoch is not None:
                self._ubx_tells_time = True
                epochs.append(epoch)
        for sentence in self._nmea_reader.feed(data, raw_ns):
            epoch = self._nmea.take(sentence)
            if epoch is not None and not self._ubx_tells_time:
                epochs.append(epoch)
        return [m for m in map(self.gate.take, epochs) if m is not None]

    def signals(self) -> GnssSignals | None:
        """The sky, UBX before NMEA, each filling what the other does not say."""
        ours, theirs = self.ubx.signals(), self._nmea.signals()
        if ours is None or theirs is None:
            return ours or theirs
        missing = {
            name: getattr(theirs, name)
            for name in GnssSignals.__dataclass_fields__
            if getattr(ours, name) is None
        }
        return replace(ours, **missing)

    def take_marks(self) -> list[TimeMark]:
        """Time marks since the last call."""
        return self.ubx.take_marks()

    def pulse_ahead(self) -> PulseAhead | None:
        """What the next pulse will mark, when the receiver tells."""
        return self.ubx.pulse
