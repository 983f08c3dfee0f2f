"""`edge.toml`: what the edge daemon reads. Every key, unit and default: docs/config.md."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from syncline.config import Section, load
from syncline.edge.model_config import (
    MAX_CAMERAS,
    Models,
    ModelSection,
    Name,
    RunnerSection,
    check_models,
)
from syncline.errors import ConfigError, UsageError
from syncline.sensors.adapters.network_url import check_url
from syncline.sensors.frame import Anchor
from syncline.sensors.mode import ScanDirection, SensorMode, Shutter
from syncline.sync.config import TimeConfig

# Every number has bounds: infinity and 1e300 are numbers too, and end deep inside a thread.
Rate = Annotated[float, msgspec.Meta(ge=0.001, le=10_000.0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0.0, le=1e9)]
Seconds = Annotated[float, msgspec.Meta(ge=0.01, le=86_400.0)]
Megabytes = Annotated[float, msgspec.Meta(gt=0.0, le=1e9)]
Percent = Annotated[int, msgspec.Meta(ge=1, le=100)]


RENDERED_PX = (64, 4096)
"""Sides of a picture that the synthetic drive renders."""


class DeviceSection(Section, frozen=True, kw_only=True):
    """Who this device is and where it keeps what it must not lose.

    Attributes:
        name: Name of the device, in logs and for people; the key alone proves identity.
        data: Folder for recordings, spool, models and learned clock state.
        nice: Niceness of the daemon on Linux, where the system allows it; below 0 it goes before
            other programs. One that it was started with stays.
    """

    name: Name
    data: str
    nice: Annotated[int, msgspec.Meta(ge=-20, le=19)] = -5


class CameraSection(Section, frozen=True, kw_only=True):
    """One camera and the timing model that it declares.

    Attributes:
        name: Name in topics.
        kind: `synthetic`, `video` (file), `images` (folder), `v4l2`, `rtsp`, or `stream` (other
            network video).
        path: File, folder or device node; only for `video`, `images` and `v4l2`.
        url: Address such as `rtsp://user:password@host/path`; only for `rtsp` and `stream`.
        transport: How RTSP sends pictures: `tcp` loses none on the way, `udp` does not wait.
        timeout_s: Longest wait for a stream's answer or next picture; then it is opened again.
        latency_ms: Greatest age of a stream's picture when it arrives, from the end of readout.
        sender_error_ms: A stream's own clock is UTC within this, for certain; 0 = nobody says so,
            and its sender reports are not used as time.
        sender_event: What a stream's times mark: `soe`, `sof`, `mid` or `eof`; see docs/sensors.md.
        loop: Start again at the end of a file or folder.
        fps: Rate of a synthetic camera, asked of a `v4l2` one, or of pictures whose names tell no
            time.
        seed: Seed of the synthetic drive.
        width: Width of the picture that is made, or asked of the camera, pixels.
        height: Height of the same, pixels.
        shutter: `global`, `rolling` or `global_reset`.
        readout_us: First to one past the last line, microseconds; 0: as a V4L2 sensor's controls
            tell, else not known, and the bias of the frame times covers a whole period.
        direction: `top_bottom`, `bottom_top`, `left_right` or `right_left`.
        anchor: `trigger`, `readout` or `unknown`: what is periodic.
        exposure_us: Exposure where the camera does not report it: [shortest, longest].
        marks: Name of the `[[time.gnss]]` receiver whose EXTINT pin is on the trigger line of this
            camera too: frames are timed by their edges. Needs `anchor = "trigger"`; see
            docs/sensors.md.
        trigger_delay_us: From the edge to the start of exposure; only with `marks`.
        decode: `full`, or `reduced`: a camera's JPEG is decoded at 1/2, 1/4 or 1/8 of its size
            where the model's input is no larger; see docs/edge-runner.md.
    """

    name: Name
    kind: Literal["synthetic", "video", "images", "v4l2", "rtsp", "stream"]
    path: str = ""
    url: str = ""
    transport: Literal["tcp", "udp"] = "tcp"
    timeout_s: Annotated[float, msgspec.Meta(ge=0.1, le=60.0)] = 4.0
    latency_ms: Annotated[float, msgspec.Meta(gt=0.0, le=60_000.0)] = 1000.0
    sender_error_ms: NotNegative = 0.0
    sender_event: Literal["soe", "sof", "mid", "eof"] = "eof"
    loop: bool = False
    fps: Rate = 20.0
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**62)] = 1
    width: Annotated[int, msgspec.Meta(ge=16, le=8192)] = 640
    height: Annotated[int, msgspec.Meta(ge=16, le=8192)] = 384
    shutter: Literal["global", "rolling", "global_reset"] = "global"
    readout_us: NotNegative = 0.0
    direction: Literal["top_bottom", "bottom_top", "left_right", "right_left"] = "top_bottom"
    anchor: Literal["trigger", "readout", "unknown"] = "unknown"
    exposure_us: tuple[NotNegative, NotNegative] = (500.0, 18_000.0)
    marks: str = ""
    trigger_delay_us: NotNegative = 0.0
    decode: Literal["full", "reduced"] = "full"

    def mode(self, width_px: int, height_px: int, period_ns: float) -> SensorMode:
        """The declared readout for pictures of a size."""
        return SensorMode.simple(
            width_px,
            height_px,
            readout_ns=self.readout_us * 1e3 or float(height_px),
            period_ns=period_ns if self.readout_us else 0.0,
            shutter=Shutter(self.shutter),
            direction=self.scan_direction,
        )

    @property
    def is_live(self) -> bool:
        """Whether it is a device that may come back at any time, not a recording."""
        return self.kind not in ("video", "images")

    @property
    def is_stream(self) -> bool:
        """Whether it comes over the network."""
        return self.kind in ("rtsp", "stream")

    @property
    def scan_direction(self) -> ScanDirection:
        """The declared direction as its enum."""
        return ScanDirection(self.direction)

    @property
    def anchor_kind(self) -> Anchor:
        """The declared anchor as its enum."""
        return Anchor(self.anchor)


class CanSection(Section, frozen=True, kw_only=True):
    """One CAN bus of the vehicle.

    Attributes:
        name: Name in topics.
        interface: SocketCAN interface, such as `can0`, which must be up; with `driver` what
            python-can calls the channel, such as `/dev/ttyACM0` or `PCAN_USBBUS1`.
        driver: python-can's name of an interface that the kernel does not drive, such as `slcan`
            or `pcan`; empty: SocketCAN, which has better times.
        bitrate: Of the bus, bit/s, for a `driver` that must be told; 0: it knows.
        record: Record its frames.
        database: File that tells what its frames mean (DBC, KCD, SYM, ARXML); needed for `speed`.
        speed: `MESSAGE.SIGNAL` of the vehicle's speed: the clock holds it against the speed that
            GNSS claims, which unmasks a spoofer. Empty: not told.
        speed_unit: `m/s`, `km/h` or `mph`.
    """

    name: Name
    interface: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    driver: str = ""
    bitrate: Annotated[int, msgspec.Meta(ge=0, le=20_000_000)] = 0
    record: bool = True
    database: str = ""
    speed: str = ""
    speed_unit: Literal["m/s", "km/h", "mph"] = "km/h"


class ImuSection(Section, frozen=True, kw_only=True):
    """One inertial sensor, through Linux industrial I/O.

    Attributes:
        name: Name in topics.
        device: `iio:device0`, or the device's `name` or `label`.
        rate_hz: Sampling frequency to set; 0 leaves it.
        trigger: Trigger to set, such as `icm42605-dev1`; empty leaves it.
    """

    name: Name
    device: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    rate_hz: NotNegative = 0.0
    trigger: str = ""


class RecordSection(Section, frozen=True, kw_only=True):
    """What is recorded on the device.

    Attributes:
        enabled: Record at all.
        segment_s: Length of a segment, seconds.
        quota_mb: Disk that recordings may use; the oldest unpinned segment goes first.
        images: Record the pictures too.
        jpeg_quality: Of pictures that are encoded on the device, 1..100.
        recompress: Encode what a camera sends as JPEG again, at `jpeg_quality`: less disk for more
            CPU, and a replay sees other pixels than the model did.
    """

    enabled: bool = True
    segment_s: Seconds = 10.0
    quota_mb: Megabytes = 4096.0
    images: bool = True
    jpeg_quality: Percent = 80
    recompress: bool = False


class LinkSection(Section, frozen=True, kw_only=True):
    """The way to the collector.

    Attributes:
        endpoint: ZeroMQ endpoint such as `tcp://collector:5555`; empty: nothing is sent.
        server_key: The collector's public key file.
        key: This device's secret key file.
        quota_mb: Disk that the spool may use.
        drain_s: On SIGTERM, how long to wait until everything is sent and acknowledged, uploads
            too.
        upload_images: Send pictures too, after everything else: `true` all of them, `"chosen"`
            those that a shadow model found worth it and 1 % by lot.
    """

    endpoint: str = ""
    server_key: str = ""
    key: str = ""
    quota_mb: Megabytes = 1024.0
    drain_s: Annotated[float, msgspec.Meta(ge=0.0, le=3600.0)] = 5.0
    upload_images: bool | Literal["chosen"] = False


class HealthSection(Section, frozen=True, kw_only=True):
    """What the daemon says of itself.

    Attributes:
        interval_s: Seconds between `/health` messages.
        prometheus: `host:port` of a text endpoint for Prometheus; empty: none.
    """

    interval_s: Annotated[float, msgspec.Meta(ge=0.05, le=3600.0)] = 1.0
    prometheus: str = ""


class EdgeConfig(Section, frozen=True, kw_only=True):
    """The whole of `edge.toml`."""

    device: DeviceSection
    camera: Annotated[tuple[CameraSection, ...], msgspec.Meta(min_length=1, max_length=MAX_CAMERAS)]
    can: Annotated[tuple[CanSection, ...], msgspec.Meta(max_length=16)] = ()
    imu: Annotated[tuple[ImuSection, ...], msgspec.Meta(max_length=16)] = ()
    model: Models = ModelSection()
    runner: RunnerSection = RunnerSection()
    record: RecordSection = RecordSection()
    link: LinkSection = LinkSection()
    time: TimeConfig = TimeConfig()
    health: HealthSection = HealthSection()

    @property
    def models(self) -> tuple[ModelSection, ...]:
        """Every model, the main one first."""
        return (self.model,) if isinstance(self.model, ModelSection) else self.model

    def model_key(self, at: int) -> str:
        """Where a model stands in the file."""
        return "$.model" if isinstance(self.model, ModelSection) else f"$.model[{at}]"


def load_edge_config(path: Path) -> EdgeConfig:
    """Read and check `edge.toml`.

    Raises:
        ConfigError: A key is unknown, missing or impossible; the message holds its path.
    """
    config = load(path, EdgeConfig)
    names = [camera.name for camera in config.camera]
    if len(set(names)) != len(names):
        raise ConfigError(
            f"{path}: two cameras share a name ({', '.join(names)})",
            remedy="Give every [[camera]] its own name",
        )
    for at, camera in enumerate(config.camera):
        _check_place(camera, f"{path}: $.camera[{at}]")
        _check_marks(camera, f"{path}: $.camera[{at}]", config.time)
        _check_size(camera, f"{path}: $.camera[{at}]")
    _check_can(path, config.can)
    check_models(config.models, names, f"{path}: $.model")
    sensors = [imu.name for imu in config.imu]
    if len(set(sensors)) != len(sensors):
        raise ConfigError(
            f"{path}: two inertial sensors share a name ({', '.join(sensors)})",
            remedy="Give every [[imu]] its own name",
        )
    _check_chosen(path, config)
    if config.link.endpoint and not (config.link.server_key and config.link.key):
        raise ConfigError(
            f"{path}: $.link.endpoint is set, $.link.server_key or $.link.key is empty",
            remedy="Make keys with: syncline keys new NAME --out DIR",
        )
    return config


def _check_size(camera: CameraSection, where: str) -> None:
    low, high = RENDERED_PX
    if camera.kind == "synthetic" and not all(
        low <= side <= high for side in (camera.width, camera.height)
    ):
        raise ConfigError(
            f"{where}: {camera.width}x{camera.height} cannot be rendered, sides are {low}..{high}",
            remedy="Choose another width and height for the synthetic camera",
        )


def _check_chosen(path: Path, config: EdgeConfig) -> None:
    """Chosen pictures are sent only where something chooses and the pictures are recorded."""
    if config.link.upload_images != "chosen":
        return
    missing = "" if any(model.shadow for model in config.models) else "no model has a shadow"
    if not (config.record.enabled and config.record.images):
        missing = "$.record records no pictures"
    if missing:
        raise ConfigError(
            f"{path}: $.link.upload_images is 'chosen' and {missing}: nothing would ever be sent",
            remedy="Set model.shadow and record pictures, or set upload_images to true or false",
        )


def _check_marks(camera: CameraSection, where: str, time: TimeConfig) -> None:
    """A camera that is timed by a receiver's marks is triggered, live, and the receiver is ours."""
    if not camera.marks:
        return
    if camera.anchor != "trigger" or camera.kind != "v4l2":
        raise ConfigError(
            f"{where}.marks is set, kind is {camera.kind!r} and anchor {camera.anchor!r}",
            remedy='Marks time a camera of kind "v4l2" with anchor = "trigger"',
        )
    if camera.marks not in [gnss.name for gnss in time.gnss if not gnss.gpsd]:
        raise ConfigError(
            f"{where}.marks = {camera.marks!r} is no [[time.gnss]] receiver on a line of ours",
            remedy="Give its name; gpsd does not tell the marks, so it must have a device",
        )


def _check_can(path: Path, buses: tuple[CanSection, ...]) -> None:
    names = [bus.name for bus in buses]
    if len(set(names)) != len(names):
        raise ConfigError(
            f"{path}: two CAN buses share a name ({', '.join(names)})",
            remedy="Give every [[can]] its own name",
        )
    if sum(bool(bus.speed) for bus in buses) > 1:
        raise ConfigError(
            f"{path}: more than one $.can[].speed is set", remedy="Keep the one to be trusted"
        )
    for at, bus in enumerate(buses):
        if not bus.driver and (len(bus.interface) > 15 or bus.bitrate):
            raise ConfigError(
                f"{path}: $.can[{at}]: interface {bus.interface!r}, bitrate {bus.bitrate}: "
                "no SocketCAN interface is called so, or takes a bitrate from here",
                remedy="Set driver for python-can's interfaces; ip link sets SocketCAN's bitrate",
            )
        if bus.speed and ("." not in bus.speed or not bus.database):
            raise ConfigError(
                f"{path}: $.can[{at}].speed = {bus.speed!r} needs MESSAGE.SIGNAL and a database",
                remedy="Write for example speed = 'WHEELS.SPEED', database = 'vehicle.dbc'",
            )


def _check_place(camera: CameraSection, where: str) -> None:
    """A file or node has a path, a stream a url, and neither has both."""
    needed = "url" if camera.is_stream else "" if camera.kind == "synthetic" else "path"
    for key, remedy in (
        ("path", "Give the file, folder or device node"),
        ("url", "Give the address, such as rtsp://user:password@host/path"),
    ):
        value = getattr(camera, key)
        if key == needed and not value:
            raise ConfigError(
                f"{where}.{key} is empty, kind {camera.kind!r} needs it", remedy=remedy
            )
        if key == "url" and value and key != needed:
            raise ConfigError(
                f"{where}.url is set, kind {camera.kind!r} has none",
                remedy="Take it away, or set kind to rtsp or stream",
            )
    if camera.is_stream:
        try:
            check_url(camera.url)
        except UsageError as error:
            raise ConfigError(f"{where}.url: {error.message}", remedy=error.remedy) from error
        scheme = camera.url.partition(":")[0]
        if camera.kind == "rtsp" and scheme not in ("rtsp", "rtsps"):
            raise ConfigError(
                f"{where}.url begins with {scheme!r}, kind 'rtsp' needs rtsp:// or rtsps://",
                remedy='Set kind = "stream" for other network video',
            )
