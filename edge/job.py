"""What goes into the runner and what comes out of it."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from syncline.edge.decode.types import Boxes, Decoded, LabelMap, Scores
from syncline.edge.model.manifest import Manifest
from syncline.sensors.frame import FrameTime
from syncline.sensors.jpeg import JpegPicture

Pixels = NDArray[np.uint8] | JpegPicture | Callable[[], NDArray[np.uint8]]
"""A BGR image (H, W, 3), or what is decoded only when it is needed: a JPEG, or a function."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One camera frame.

    Attributes:
        camera: Name of the camera.
        index: Number within the camera's stream.
        bgr: uint8 (H, W, 3), blue first, or what makes it: a JPEG, or a function.
        timing: When its pixels were exposed, where that is known.
        raw_ns: When the process had it, CLOCK_MONOTONIC_RAW; deadlines and ages count from here.
        primary: On its way to a shadow model: what the serving model said of it.
    """

    camera: str
    index: int
    bgr: Pixels
    timing: FrameTime | None
    raw_ns: int
    primary: Result | None = None

    def pixels(self, denominator: int = 1) -> NDArray[np.uint8]:
        """The image; decodes it when it came as a JPEG or a function.

        Args:
            denominator: At what fraction of its size a JPEG is wanted: 1, 2, 4 or 8.
        """
        if isinstance(self.bgr, JpegPicture):
            return self.bgr.decode(denominator)
        return self.bgr() if callable(self.bgr) else self.bgr

    @property
    def at_ns(self) -> int:
        """The frame's own time, the same live and in replay: its middle of exposure."""
        return self.raw_ns if self.timing is None else self.timing.mid_ns

    @property
    def size_px(self) -> tuple[int, int]:
        """(width, height) of the whole image; of a JPEG, by its header."""
        height, width = (self.pixels() if callable(self.bgr) else self.bgr).shape[:2]
        return width, height


class DropReason(enum.Enum):
    """Why a captured frame was not processed."""

    REPLACED = "replaced"
    """A newer frame of the same camera took its place (latest wins)."""
    QUEUE_FULL = "queue-full"
    """The bounded queue was full."""
    RATE = "rate"
    """The model's configured rate did not ask for it."""
    LATE = "late"
    """Its deadline passed before inference began; it was not run."""
    TIMEOUT = "timeout"
    """Its deadline passed during inference; the run was stopped."""
    BAD_FRAME = "bad-frame"
    """It could not be decoded or is no image that the model can take."""
    FAILED = "failed"
    """The runtime or the decoder failed on it."""
    HANG = "hang"
    """The worker that held it did not come back and was replaced."""
    SHED = "shed"
    """Shadow work that gave way to the primary model."""
    STOPPED = "stopped"
    """The runner was stopped before its turn."""
    LOST = "lost"
    """The camera's numbers skip it: it was lost before it reached us."""
    REFUSED = "refused"
    """Its stamps contradict each other, so that no time can be given to it."""


@dataclass(frozen=True, slots=True)
class Drop:
    """A frame that was captured and not processed.

    Attributes:
        slot: Model slot that it was meant for.
        camera: Name of the camera.
        index: The frame's number.
        raw_ns: When it was dropped, CLOCK_MONOTONIC_RAW.
        reason: Why.
        detail: What was wrong, in words.
        count: Frames that went this way, `index` being the first.
    """

    slot: str
    camera: str
    index: int
    raw_ns: int
    reason: DropReason
    detail: str = ""
    count: int = 1


@dataclass(frozen=True, slots=True)
class Latencies:
    """Where a result's time went, nanoseconds.

    Attributes:
        wait_ns: From the frame's `raw_ns` until a worker took it; 0 for recordings.
        decode_ns: Making the image, where it came as a function. A live JPEG is decoded before
            its turn, by the thread that submits it: within `wait_ns`.
        pre_ns: Resize and normalisation.
        infer_ns: The model's run.
        post_ns: Decoding of the outputs and their checks.
    """

    wait_ns: int = 0
    decode_ns: int = 0
    pre_ns: int = 0
    infer_ns: int = 0
    post_ns: int = 0

    @property
    def total_ns(self) -> int:
        """From the frame's `raw_ns` to the result."""
        return self.wait_ns + self.service_ns

    @property
    def service_ns(self) -> int:
        """From the moment that a worker took it to the result."""
        return self.decode_ns + self.pre_ns + self.infer_ns + self.post_ns


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What a model says of a frame.

    Attributes:
        frame: The frame.
        slot: Model slot that made it.
        model_digest: Digest of the bundle that made it.
        output: Boxes, a label map or class scores; None when there is none to show.
        valid: False = must not be used as a detection; `invalid_reason` says why.
        invalid_reason: Empty when valid.
        latencies: Where its time went.
        shadow: Made by a shadow model: for comparison, never for use.
        manifest: Of the model that made it: what its classes mean, whatever serves by now.
    """

    frame: Frame
    slot: str
    model_digest: str
    output: Decoded | None
    valid: bool
    invalid_reason: str
    latencies: Latencies
    shadow: bool = False
    manifest: Manifest | None = None

    @property
    def boxes(self) -> Boxes | None:
        """The output, when it is boxes."""
        return self.output if isinstance(self.output, Boxes) else None

    @property
    def labels(self) -> LabelMap | None:
        """The output, when it is a label map."""
        return self.output if isinstance(self.output, LabelMap) else None

    @property
    def scores(self) -> Scores | None:
        """The output, when it is class scores."""
        return self.output if isinstance(self.output, Scores) else None
