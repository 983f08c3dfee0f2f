"""A video with the boxes drawn, each with its class, score and frame time."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import av.error
import cv2
import numpy as np
from numpy.typing import NDArray

from syncline.edge.decode.types import Boxes, LabelMap
from syncline.edge.job import Result
from syncline.errors import UsageError
from syncline.output import cannot_write, check_new

SUFFIXES = (".mp4", ".mov", ".mkv")
TIME_BASE = Fraction(1, 90_000)
_COLOURS = (
    (60, 76, 231), (219, 152, 52), (113, 204, 46), (15, 196, 241), (182, 89, 155), (34, 126, 230),
    (94, 73, 52), (193, 182, 255), (128, 128, 0), (42, 42, 165), (255, 255, 0), (200, 200, 200),
)  # fmt: skip


def draw_boxes(image: NDArray[np.uint8], boxes: Boxes, labels: Sequence[str]) -> None:
    """Draw boxes and captions into a BGR picture, in place."""
    for xyxy, score, class_id in zip(boxes.xyxy_px, boxes.score, boxes.class_id, strict=True):
        colour = _COLOURS[int(class_id) % len(_COLOURS)]
        x0, y0, x1, y1 = (round(float(v)) for v in xyxy)
        cv2.rectangle(image, (x0, y0), (x1, y1), colour, 2, cv2.LINE_AA)
        name = labels[class_id] if class_id < len(labels) else str(class_id)
        _caption(image, f"{name} {score:.2f}", (x0, y0), colour)


def _caption(
    image: NDArray[np.uint8], text: str, at: tuple[int, int], colour: tuple[int, int, int]
) -> None:
    (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.42, 1)
    x, y = at[0], max(at[1], height + base)
    cv2.rectangle(image, (x, y - height - base), (x + width, y), colour, cv2.FILLED)
    white = (255, 255, 255)
    cv2.putText(
        image, text, (x, y - base + 1), cv2.FONT_HERSHEY_SIMPLEX, 0.42, white, 1, cv2.LINE_AA
    )


def draw_labels(image: NDArray[np.uint8], labels: LabelMap) -> None:
    """Lay a label map over a BGR picture, in place; class 0 stays clear."""
    colours = np.array([(0, 0, 0), *(_COLOURS * 22)], dtype=np.uint8)[:256]
    full = labels.upsampled()
    shown = full > 0
    image[shown] = (image[shown] * 0.55 + colours[full[shown]] * 0.45).astype(np.uint8)


class Annotator:
    """Writes results as an H.264 video whose presentation times are the frame times.

    It is written under another name beside `path` and gets its own when it is whole, so that
    nothing half-written ever stands there. As a context manager it is given up after an error.

    Args:
        path: New file to write: `.mp4`, `.mov` or `.mkv`.
        labels: Class names.
        source: What is replayed, which `path` must not be.

    Raises:
        UsageError: The file exists, or its ending names no container.
        StorageError: Its folder is not there.
    """

    def __init__(self, path: Path, labels: Sequence[str], *, source: Path | None = None) -> None:
        if path.suffix.lower() not in SUFFIXES:
            raise UsageError(
                f"{path} names no container for a video", remedy=f"Call it {' or '.join(SUFFIXES)}"
            )
        check_new(path, "the annotated video", source=source)
        self._path = path
        self._part = path.with_name(f".{path.stem}.part{path.suffix}")
        self._labels = labels
        self._container: av.container.OutputContainer | None = None
        self._stream: av.VideoStream | None = None
        self._first_ns = 0
        self._last_pts = -1

    def __enter__(self) -> Annotator:
        """Nothing is opened before the first result."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the file, or give it up after an error."""
        if error is None:
            self.close()
        else:
            self.discard()

    def add(self, result: Result) -> None:
        """Draw one result.

        Raises:
            StorageError: The file cannot be written.
        """
        image = result.frame.pixels().copy()
        if isinstance(result.output, Boxes):
            draw_boxes(image, result.output, self._labels)
        elif isinstance(result.output, LabelMap):
            draw_labels(image, result.output)
        timing = result.frame.timing
        mid_ns = result.frame.raw_ns if timing is None else timing.mid_ns
        sigma = "" if timing is None else f"  mid-exposure +-{timing.sigma_ns / 1e3:.0f} us"
        first = self._container is None
        if first:
            self._first_ns = mid_ns
        text = f"frame {result.frame.index}  t {(mid_ns - self._first_ns) / 1e9:8.4f} s{sigma}"
        _caption(image, text, (4, image.shape[0] - 4), (70, 70, 70))
        try:
            if first:
                self._open(image)
            self._encode(image, mid_ns)
        except (OSError, av.error.FFmpegError) as error:
            self.discard()
            raise cannot_write(self._path, error) from error

    def _open(self, image: NDArray[np.uint8]) -> None:
        height, width = image.shape[:2]
        self._container = av.open(str(self._part), mode="w")
        stream = self._container.add_stream("libx264", rate=30)
        stream.width, stream.height = width - width % 2, height - height % 2
        stream.pix_fmt = "yuv420p"
        stream.time_base = TIME_BASE
        stream.codec_context.time_base = TIME_BASE
        stream.options = {"preset": "ultrafast", "crf": "22"}
        self._stream = stream

    def _encode(self, image: NDArray[np.uint8], mid_ns: int) -> None:
        assert self._container is not None
        assert self._stream is not None
        even = image[: self._stream.height, : self._stream.width]
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="bgr24")
        # Two frames never share a presentation time, whatever the rounding of the time base.
        pts = max(int((mid_ns - self._first_ns) * 90_000 // 10**9), self._last_pts + 1)
        frame.pts, frame.time_base = pts, TIME_BASE
        self._last_pts = pts
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Finish the file and give it its name.

        Raises:
            StorageError: It cannot be written to its end.
            UsageError: Its name was taken meanwhile.
        """
        if self._container is None:
            return
        assert self._stream is not None
        try:
            self._container.mux(self._stream.encode(None))
            self._container.close()
            self._container = None
            check_new(self._path, "the annotated video")
            self._part.rename(self._path)
        except (OSError, av.error.FFmpegError) as error:
            raise cannot_write(self._path, error) from error
        finally:
            self.discard()

    def discard(self) -> None:
        """Leave nothing behind; after `close` there is nothing left to do."""
        container, self._container = self._container, None
        # The disk that refused the pictures refuses the end too.
        with contextlib.suppress(OSError, av.error.FFmpegError):
            if container is not None:
                container.close()
        with contextlib.suppress(OSError):
            self._part.unlink(missing_ok=True)
