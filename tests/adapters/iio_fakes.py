"""An industrial I/O device made of files."""

from __future__ import annotations

import os
import struct
from pathlib import Path

ACCEL_SCALE, GYRO_SCALE = 0.000598205, 0.000133158
SCAN = struct.Struct("<6h4xq")  # six axes, then the timestamp on a multiple of eight


class FakeDevice:
    """An `iio:deviceN` of files, its node a pipe: real reads, real polls, a real hang-up."""

    def __init__(
        self,
        root: Path,
        number: int = 0,
        *,
        clock: str = "realtime",
        changes: dict[str, str] | None = None,
    ) -> None:
        self.root, self.name = root, f"iio:device{number}"
        self.folder = root / "sys/bus/iio/devices" / self.name
        self.node = root / "dev" / self.name
        (root / "dev").mkdir(parents=True, exist_ok=True)
        texts = {
            "name": "icm42605",
            "current_timestamp_clock": clock,
            "sampling_frequency": "200.0",
            "in_accel_scale": str(ACCEL_SCALE),
            "in_anglvel_scale": str(GYRO_SCALE),
            "in_accel_z_offset": "16",
            "buffer/enable": "0",
            "buffer/length": "2",
            "scan_elements/in_timestamp_en": "0",
            "scan_elements/in_timestamp_index": "6",
            "scan_elements/in_timestamp_type": "le:s64/64>>0",
            "scan_elements/in_temp_en": "1",
            "scan_elements/in_temp_index": "7",
            "scan_elements/in_temp_type": "le:s16/16>>0",
        }
        axes = [f"in_{kind}_{axis}" for kind in ("accel", "anglvel") for axis in "xyz"]
        for index, axis in enumerate(axes):
            texts[f"scan_elements/{axis}_en"] = "0"
            texts[f"scan_elements/{axis}_index"] = str(index)
            texts[f"scan_elements/{axis}_type"] = "le:s16/16>>0"
        for key, text in {**texts, **(changes or {})}.items():
            (self.folder / key).parent.mkdir(parents=True, exist_ok=True)
            # As the kernel really writes it (drivers/iio/industrialio-core.c).
            end = "\n\0" if key == "current_timestamp_clock" else "\n"
            (self.folder / key).write_text(text + end)
        os.mkfifo(self.node)

    def setting(self, key: str) -> str:
        return (self.folder / key).read_text().strip("\n\0")

    def remove(self) -> None:
        self.folder.rename(self.folder.with_name("gone-" + self.name))
        self.node.unlink()


def sample(k: int, stamp_ns: int) -> bytes:
    return SCAN.pack(100 + k, 200, 16384, -300, 400, 500, stamp_ns)
