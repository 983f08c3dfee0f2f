"""`syncline doctor` on this machine and on made-up ones."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import msgspec
import pytest

from syncline.cli import main
from syncline.cli.doctor import screen
from syncline.cli.doctor_checks import Finding, Machine, examine
from syncline.timebase import Clock, PairedRead
from tests.adapters.iio_fakes import FakeDevice
from tests.adapters.test_containers import jittered, write


def refused() -> str:
    raise ConnectionRefusedError(111, "Connection refused")


def silent() -> str:
    raise subprocess.TimeoutExpired("chronyc", 1.0)


def machine(root: Path, **changes: object) -> Machine:
    given = {
        "root": root,
        "version": lambda _: "1.0",
        "pair": lambda clock: PairedRead(0, 1_000_000, 300),
        "gpsd": refused,
        "chrony": silent,
        "providers": lambda: ("CPUExecutionProvider",),
        **changes,
    }
    return Machine(root, **given)  # type: ignore[arg-type]


def found(machine: Machine) -> dict[str, Finding]:
    findings = examine(machine)
    assert len({f.what for f in findings}) == len(findings)
    return {f.what: f for f in findings}


def put(root: Path, path: str, text: str) -> Path:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)
    return root / path


def test_a_bare_machine_gets_remedies_and_no_failure(tmp_path: Path) -> None:
    rows = found(machine(tmp_path))
    assert not [f for f in rows.values() if f.state in ("warn", "fail")]
    assert "Connection refused" in rows["gpsd"].detail
    assert "TimeoutExpired" in rows["chrony"].detail
    for name in ("v4l2", "pulse per second", "PTP hardware clock", "gpsd", "chrony"):
        assert rows[name].state == "note"
        assert rows[name].remedy


def test_cameras_tell_what_their_stamps_mean(tmp_path: Path) -> None:
    for number, driver in ((0, "uvcvideo"), (10, "vivid"), (2, "imx219")):
        put(tmp_path, f"dev/video{number}", "")
        put(tmp_path, f"sys/class/video4linux/video{number}/name", f"Cam {driver}\n")
        (tmp_path / "drivers" / driver).mkdir(parents=True)
        device = tmp_path / "sys" / "class" / "video4linux" / f"video{number}" / "device"
        device.mkdir()
        (device / "driver").symlink_to(tmp_path / "drivers" / driver)
    rows = found(machine(tmp_path))
    assert "start of exposure" in rows["/dev/video0"].detail
    assert "Cam imx219 (imx219); stamp: end of readout" in rows["/dev/video2"].detail
    assert "virtual" in rows["/dev/video10"].detail
    names = [name for name in rows if name.startswith("/dev/video")]
    assert names == ["/dev/video0", "/dev/video2", "/dev/video10"]


def test_references_and_buses(tmp_path: Path) -> None:
    put(tmp_path, "dev/pps0", "")
    put(tmp_path, "dev/ptp0", "")
    put(tmp_path, "sys/class/net/can0/type", "280\n")
    put(tmp_path, "sys/class/net/can0/operstate", "down\n")
    put(tmp_path, "sys/class/net/can1/type", "280\n")
    put(tmp_path, "sys/class/net/can1/operstate", "up\n")
    put(tmp_path, "sys/class/net/eth0/type", "1\n")
    rows = found(machine(tmp_path, gpsd=lambda: '{"class":"VERSION"}', chrony=lambda: "not chrony"))
    assert rows["/dev/pps0"].state == rows["/dev/ptp0"].state == rows["gpsd"].state == "ok"
    assert rows["chrony"].state == "warn"
    assert "ip link set can0 up" in rows["can0"].remedy
    assert rows["can1"].state == "ok"
    assert "eth0" not in rows


def test_what_syncline_cannot_do_without_fails(tmp_path: Path) -> None:
    def version(package: str) -> str | None:
        return None if package in ("numpy", "linuxpy", "torch") else "1.0"

    def broken() -> tuple[str, ...]:
        raise ImportError("onnxruntime is broken")

    rows = found(machine(tmp_path, version=version, providers=broken))
    assert rows["packages"].state == rows["onnxruntime"].state == "fail"
    assert "no numpy" in rows["packages"].detail
    assert rows["linuxpy"].remedy == "pip install 'syncline[sensors]'"
    text = "\n".join(screen(list(rows.values())))
    assert "FAIL packages" in text
    assert text.endswith("2 missing")


def test_clocks_that_read_slowly_are_told(tmp_path: Path) -> None:
    put(tmp_path, "sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet\n")
    slow = machine(tmp_path, pair=lambda _: PairedRead(0, 0, 90_000))
    row = found(slow)[Clock.MONOTONIC.name]
    assert row.state == "warn"
    assert "hpet" in row.remedy


@pytest.mark.parametrize(("offset_s", "state"), [(0, "note"), (37, "ok")])
def test_a_tai_that_nobody_set_is_told(tmp_path: Path, offset_s: int, state: str) -> None:
    def pair(clock: Clock) -> PairedRead:
        ahead_ns = 10**18 * (clock in (Clock.REALTIME, Clock.TAI))
        return PairedRead(0, ahead_ns + offset_s * 10**9 * (clock is Clock.TAI), 300)

    row = found(machine(tmp_path, pair=pair))[Clock.TAI.name]
    assert row.state == state
    assert ("equals REALTIME" in row.detail) == (state == "note")


def test_vnni_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    put(tmp_path, "proc/cpuinfo", "flags\t\t: avx2 avx512_vnni\n")
    assert found(machine(tmp_path))["processor"].state == "ok"
    put(tmp_path, "proc/cpuinfo", "flags\t\t: avx2\n")
    assert found(machine(tmp_path))["processor"].state == "note"


def test_the_command_on_this_machine(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = str(tmp_path / "not" / "yet")
    assert main(["doctor", "--data", folder]) == 0
    text = capsys.readouterr().out
    assert "ok   packages" in text
    assert "MONOTONIC" in text
    assert main(["doctor", "--json", "--data", folder]) == 0
    rows = msgspec.json.decode(capsys.readouterr().out)["findings"]
    assert {"software", "clocks", "disk", "cameras"} <= {row["area"] for row in rows}


def test_inertial_sensors_and_receivers_tell_what_their_stamps_mean(tmp_path: Path) -> None:
    for number, clock in ((0, "realtime"), (1, "monotonic_coarse")):
        FakeDevice(tmp_path, number, clock=clock)
    put(tmp_path, "sys/bus/iio/devices/iio:device2/name", "als\n")
    put(tmp_path, "dev/gnss0", "")
    put(tmp_path, "sys/class/gnss/gnss0/type", "UBX\n")
    put(tmp_path, "dev/ttyACM0", "")
    (tmp_path / "dev/serial/by-id").mkdir(parents=True)
    (tmp_path / "dev/serial/by-id/usb-u-blox_7").symlink_to(tmp_path / "dev/ttyACM0")
    rows = found(machine(tmp_path))
    assert "anglvel and accel; stamp: the trigger" in rows["iio:device0"].detail
    assert rows["iio:device0"].detail.endswith("REALTIME")
    assert "MONOTONIC, coarse (up to 10 ms early)" in rows["iio:device1"].detail
    assert rows["iio:device2"].state == "note"
    assert rows["/dev/gnss0"].detail.startswith("UBX; stamp: UTC of the epoch")
    assert "usb-u-blox_7" in rows["/dev/ttyACM0"].detail


def test_configured_cameras_are_opened_and_say_what_comes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "clip.mp4", jittered(), {})
    put(
        tmp_path,
        "edge.toml",
        f"""
[device]
name = "car"
data = "{tmp_path}"
[[camera]]
name = "clip"
kind = "video"
path = "{tmp_path}/clip.mp4"
anchor = "readout"
exposure_us = [1000.0, 1000.0]
[[camera]]
name = "rear"
kind = "rtsp"
url = "rtsp://me:secret@127.0.0.1:9/live"
[[can]]
name = "body"
interface = "nocan7"
[[can]]
name = "quiet"
interface = "quiet"
driver = "virtual"
[[can]]
name = "busy"
interface = "busy"
driver = "virtual"
[[imu]]
name = "roof"
device = "icm42605"
""",
    )
    can = pytest.importorskip("can")
    monkeypatch.setattr("syncline.cli.doctor_sensors.LOOK_S", 1.0)
    stop = threading.Event()
    sender = can.Bus(interface="virtual", channel="busy", ignore_config=True)

    def send() -> None:
        while not stop.wait(0.005):
            sender.send(can.Message(arbitration_id=7, data=b"1"))

    thread = threading.Thread(target=send)
    thread.start()
    command = ["doctor", "--config", str(tmp_path / "edge.toml"), "--data", str(tmp_path)]
    try:
        assert main(command) == 1
    finally:
        stop.set()
        thread.join(5.0)
        sender.shutdown()
    text = capsys.readouterr().out
    assert "FAIL can body: CAN interface nocan7: " in text
    assert "WARN can quiet: opened, nothing within 1 s; its bus may be asleep" in text
    assert "ok   can busy: stamp: reception, MONOTONIC_RAW; sigma 0.000 ms, bias -50..+0 ms" in text
    assert "FAIL imu roof: IIO device 'icm42605' is not there" in text
    assert "ok   clip: video, 64x48; stamp: end of readout, MONOTONIC_RAW; exposure not" in text
    assert "anchor readout; middle of exposure: sigma 0." in text
    assert "container tick" in text
    assert "FAIL rear: rtsp: stream rtsp://127.0.0.1:9/live: Connection refused" in text
    assert "secret" not in text
    put(tmp_path, "edge.toml", "[device]\n")
    assert main(command) == 2
