"""Running a graph the way the device will: the edge's own preprocessing and decoders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray

from syncline.cloud.models.frames import Frame
from syncline.cloud.models.graph import serialise
from syncline.cloud.models.runtime import Array, GraphSession
from syncline.cloud.models.targets import sums_overflow_here
from syncline.edge.decode import Decoded, decoder_for
from syncline.edge.model.manifest import InputSpec, Manifest
from syncline.edge.preprocess import Preprocessor
from syncline.errors import ModelError


class Probe:
    """A graph with its manifest: frames in, decoded results out.

    Args:
        model: The graph.
        manifest: How it is fed and read.
        as_target: Where 8-bit sums would overflow on this machine and not on the target, compute
            them in float; False = run it as this machine does.
        as_written: Node by node without the runtime's fusions: other kernels, other rounding.

    Raises:
        ModelError: The runtime refuses the graph.
        ManifestError: The outputs are not what the decoder takes.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        manifest: Manifest,
        *,
        as_target: bool = True,
        as_written: bool = False,
    ) -> None:
        self.manifest = manifest
        exact = as_target and sums_overflow_here(manifest.target.precision)
        self._session = GraphSession(serialise(model), exact=exact, optimise=not as_written)
        self._pre = Preprocessor(manifest.input)
        self._decode = decoder_for(manifest)
        self._order = [self._index(name) for name in manifest.decoder.outputs]

    def _index(self, name: str) -> int:
        if name not in self._session.output_names:
            raise ModelError(
                f"the graph has no output {name!r}, it has {self._session.output_names}"
            )
        return self._session.output_names.index(name)

    def outputs(self, bgr: NDArray[np.uint8]) -> list[Array]:
        """Raw outputs of one frame, in the decoder's order."""
        return self.run(bgr)[0]

    def run(self, bgr: NDArray[np.uint8]) -> tuple[list[Array], Decoded]:
        """Raw outputs of one frame, in the decoder's order, and what they mean."""
        tensor, geometry = self._pre(bgr)
        found = self._session.run({self.manifest.input.name: tensor})
        outputs = [found[i] for i in self._order]
        return outputs, self._decode(outputs, geometry)

    def __call__(self, bgr: NDArray[np.uint8]) -> Decoded:
        """Decoded result of one frame, in source pixels."""
        return self.run(bgr)[1]


def feeds(spec: InputSpec, frames: Iterable[Frame]) -> Iterator[Mapping[str, Array]]:
    """Input tensors of frames, one at a time; each is a copy of its own."""
    pre = Preprocessor(spec)
    for frame in frames:
        tensor, _ = pre(frame.bgr)
        yield {spec.name: tensor.copy()}


def synthetic_frame(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    """A picture of sky, road, boxes and noise: better than noise alone where no frame is given."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), np.uint8)
    horizon = height // 2
    image[:horizon] = (200, 170, 140)
    image[horizon:] = np.linspace(70, 120, height - horizon)[:, None, None]
    for _ in range(8):
        x, y = int(rng.integers(0, width)), int(rng.integers(horizon // 2, height))
        size = int(rng.integers(max(height // 20, 2), max(height // 5, 4)))
        colour = [int(c) for c in rng.integers(0, 256, 3)]
        cv2.rectangle(image, (x, y), (x + size * 2, y + size), colour, -1)
    noise = rng.integers(-12, 13, image.shape)
    return np.asarray(np.clip(image.astype(np.int16) + noise, 0, 255), dtype=np.uint8)
