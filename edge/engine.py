"""One loaded and proven model: from a frame to a result, in three steps.

`prepare` (decode, resize), `infer` and `finish` (decode outputs, check) are apart so that a thread
beside can take the first and the last; all else runs them in a row. An `Engine` is immutable:
swapping a model is replacing one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from syncline.edge.backend import Backend, BackendOptions
from syncline.edge.decode import decoder_for
from syncline.edge.decode.types import Decoded, Decoder
from syncline.edge.job import Frame, Latencies, Result
from syncline.edge.machine import machine_kind
from syncline.edge.model.bundle import Bundle
from syncline.edge.model.golden import Golden, GoldenProof, compare
from syncline.edge.outputs import StuckDetector, implausible, not_finite
from syncline.edge.preprocess import Geometry, Preprocessor, reduction_of
from syncline.edge.proof import compare_meaning, is_same_runtime
from syncline.edge.providers import CPU
from syncline.edge.session import StopSwitch
from syncline.errors import (
    DeadlineError,
    HealthProofError,
    InferenceError,
    ModelError,
    SensorDataError,
    SynclineError,
)
from syncline.sensors.jpeg import JpegPicture
from syncline.timebase import RawClock

_log = logging.getLogger(__name__)
_WARM_RUNS = 2
PROOF_LIMIT_S = 60.0
"""Longest that the golden run may take: far more than any model that could serve."""


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A frame that is ready for the model.

    Attributes:
        frame: The frame, its image decoded; a JPEG keeps what was decoded with it.
        tensor: The input tensor; valid until its preprocessor's ring comes round.
        geometry: Where the frame lies in it.
        taken_ns: When work on it began, CLOCK_MONOTONIC_RAW.
        decode_ns: Time that decoding took.
        pre_ns: Time that preprocessing took.
    """

    frame: Frame
    tensor: NDArray[np.generic]
    geometry: Geometry
    taken_ns: int
    decode_ns: int
    pre_ns: int


@dataclass(frozen=True, slots=True, eq=False)
class Ran:
    """What a run gave.

    Attributes:
        prepared: What it was given.
        outputs: The outputs that the decoder names, in its order.
        infer_ns: Time that it took.
    """

    prepared: Prepared
    outputs: Sequence[NDArray[np.generic]]
    infer_ns: int


@dataclass(frozen=True, slots=True, eq=False)
class Engine:
    """One model, loaded and proven on its golden frame.

    Attributes:
        bundle: The bundle.
        backend: The loaded model.
        decoder: What makes sense of its outputs.
        proof: How well it reproduced its golden output.
    """

    bundle: Bundle
    backend: Backend
    decoder: Decoder
    proof: GoldenProof

    @classmethod
    def load(cls, bundle: Bundle, options: BackendOptions | None = None) -> Engine:
        """Load a bundle, prove it on its golden frame, and warm it up.

        Raises:
            ModelError: Of the kind that names why the model must not run.
        """
        try:
            return cls._from_cache_or_fresh(bundle, options or BackendOptions())
        except MemoryError as error:
            raise ModelError(
                f"there is not enough memory to load {bundle.manifest.name!r}",
                remedy="Use a smaller model, or free memory on the device",
            ) from error

    @classmethod
    def _from_cache_or_fresh(cls, bundle: Bundle, options: BackendOptions) -> Engine:
        """A proven engine; what came from the cache and fails the proof is built anew, once.

        A compiled model may compute wrongly though every byte of it is as it was written. Left
        there, it would keep the device without its model until somebody deleted the cache.
        """
        backend = Backend.load(bundle, options)
        try:
            return cls._proven(bundle, backend)
        except ModelError as error:
            if not backend.from_cache:
                raise
            failed_to_run = _is_of_the_run(error)
            name = bundle.manifest.name
            _log.warning("%r from the cache is refused: %s; it is built anew", name, error)
        if failed_to_run:
            # Perhaps the provider is dead: what may have taken minutes to compile is kept until
            # another form of the model runs.
            aside = dataclasses.replace(options, cache_dir=None)
            engine = cls._proven(bundle, Backend.load(bundle, aside, fresh=True))
            backend.forget()
            return engine
        backend = Backend.load(bundle, options, fresh=True)
        try:
            return cls._proven(bundle, backend)
        except ModelError:
            backend.forget()  # the model is at fault: what it left would only be tried again
            raise

    def check_alive(self) -> None:
        """Run the golden frame once more: whether the provider still runs anything.

        Raises:
            ModelError: It does not.
        """
        tensor, _ = Preprocessor(self.bundle.manifest.input)(self.bundle.golden().frame)
        _limited_run(self.backend, tensor)

    @classmethod
    def _proven(cls, bundle: Bundle, backend: Backend) -> Engine:
        decoder = decoder_for(bundle.manifest)
        decoder.check(backend.output_shapes)
        return cls(bundle, backend, decoder, _prove(bundle, backend, decoder))

    @property
    def digest(self) -> str:
        """Digest of the bundle."""
        return self.bundle.digest

    def preprocessor(self, buffers: int = 1) -> Preprocessor:
        """A preprocessor for this model; not to be shared between threads."""
        return Preprocessor(self.bundle.manifest.input, buffers)

    def prepare(self, frame: Frame, pre: Preprocessor, clock: RawClock) -> Prepared:
        """Decode and resize a frame.

        Raises:
            SynclineError: The frame cannot be decoded or is no image.
        """
        taken_ns = clock.raw_ns()
        denominator = self._denominator(frame)
        pixels = _decode(frame, denominator)
        decoded_ns = clock.raw_ns()
        tensor, geometry = pre(pixels, frame.size_px if denominator > 1 else None)
        ready_ns = clock.raw_ns()
        if callable(frame.bgr):
            frame = dataclasses.replace(frame, bgr=pixels)
        return Prepared(
            frame, tensor, geometry, taken_ns, decoded_ns - taken_ns, ready_ns - decoded_ns
        )

    def decode_ahead(self, frame: Frame) -> None:
        """Decode a JPEG here and now, so that a worker finds it ready.

        What is wrong with it is told when its turn comes.
        """
        if isinstance(frame.bgr, JpegPicture):
            with contextlib.suppress(SynclineError, MemoryError):
                frame.bgr.decode(self._denominator(frame))

    def _denominator(self, frame: Frame) -> int:
        """At what fraction of its size this model takes a frame."""
        picture = frame.bgr
        if not (isinstance(picture, JpegPicture) and picture.reducible):
            return 1
        spec = self.bundle.manifest.input
        return reduction_of(spec, picture.width_px, picture.height_px)

    def run(
        self,
        prepared: Prepared,
        clock: RawClock,
        slot: str,
        *,
        stop: StopSwitch | None = None,
        detector: StuckDetector | None = None,
        shadow: bool = False,
        queued: bool = False,
    ) -> Result:
        """Run the model on a prepared frame, decode and check what it says.

        Args:
            prepared: From `prepare`.
            clock: For the latencies.
            slot: Name that the result carries.
            stop: Switch by which another thread may end the run.
            detector: The camera's detector of stuck outputs.
            shadow: Whether this is a shadow model.
            queued: Whether the frame is live: its `raw_ns` is on `clock` and it may have waited.

        Raises:
            DeadlineError: The run was stopped.
            InferenceError: The runtime failed.
            ManifestError: The outputs do not fit the decoder.
        """
        ran = self.infer(prepared, clock, stop)
        return self.finish(ran, clock, slot, detector=detector, shadow=shadow, queued=queued)

    def infer(self, prepared: Prepared, clock: RawClock, stop: StopSwitch | None = None) -> Ran:
        """The model's run alone; see `run`."""
        start_ns = clock.raw_ns()
        outputs = self.backend.run(prepared.tensor, stop)
        return Ran(prepared, outputs, clock.raw_ns() - start_ns)

    def finish(
        self,
        ran: Ran,
        clock: RawClock,
        slot: str,
        *,
        detector: StuckDetector | None = None,
        shadow: bool = False,
        queued: bool = False,
    ) -> Result:
        """Decode and check what a run gave; see `run`."""
        prepared, start_ns = ran.prepared, clock.raw_ns()
        decoded, reason = self.conclude(prepared, ran.outputs, detector)
        return Result(
            frame=prepared.frame,
            slot=slot,
            model_digest=self.digest,
            output=decoded,
            valid=not reason,
            invalid_reason=reason,
            latencies=Latencies(
                wait_ns=max(prepared.taken_ns - prepared.frame.raw_ns, 0) if queued else 0,
                decode_ns=prepared.decode_ns,
                pre_ns=prepared.pre_ns,
                infer_ns=ran.infer_ns,
                post_ns=clock.raw_ns() - start_ns,
            ),
            shadow=shadow,
            manifest=self.bundle.manifest,
        )

    def conclude(
        self,
        prepared: Prepared,
        outputs: Sequence[NDArray[np.generic]],
        detector: StuckDetector | None = None,
    ) -> tuple[Decoded | None, str]:
        """Decode and check a run's outputs: (what they say, why it must not be used).

        Raises:
            ManifestError: The outputs do not fit the decoder.
        """
        if detector is not None:
            detector.step(prepared.tensor, outputs)
        reason = not_finite(outputs)
        if reason:
            return None, reason
        decoded = self.decoder(outputs, prepared.geometry)
        return decoded, implausible(decoded, len(self.bundle.manifest.labels))


def _decode(frame: Frame, denominator: int) -> NDArray[np.uint8]:
    """The image of a frame; whatever its decoder raises becomes a typed error."""
    try:
        return frame.pixels(denominator)
    except (SynclineError, MemoryError):
        raise
    except (cv2.error, ValueError, TypeError, OSError, EOFError, RuntimeError) as error:
        raise SensorDataError(
            f"frame {frame.index} of {frame.camera!r} cannot be decoded: {error}"
        ) from error


def _prove(bundle: Bundle, backend: Backend, decoder: Decoder) -> GoldenProof:
    """Run the golden frame through the whole path, then warm up.

    Raises:
        HealthProofError: The golden output is not reproduced.
        ManifestError: The golden output does not decode.
    """
    golden = bundle.golden()
    tensor, geometry = Preprocessor(bundle.manifest.input)(golden.frame)
    outputs = _limited_run(backend, tensor)
    proof = _held_against(golden, outputs, backend, lambda given: decoder(given, geometry))
    _check_decoded(decoder(outputs, geometry), outputs, bundle)
    for _ in range(_WARM_RUNS):
        backend.run(tensor)
    return proof


def _is_of_the_run(error: ModelError) -> bool:
    """Whether a proof failed because the run did, rather than by what it gave."""
    return isinstance(error, InferenceError) or isinstance(error.__cause__, InferenceError)


def _held_against(
    golden: Golden,
    outputs: Sequence[NDArray[np.generic]],
    backend: Backend,
    decode: Callable[[Sequence[NDArray[np.generic]]], Decoded],
) -> GoldenProof:
    """Element by element where all is as it was at the builder's; else by meaning.

    Outputs that are equal prove the model wherever they were computed.

    Raises:
        HealthProofError: They are not what the builder saw.
    """
    manifest = backend.manifest
    try:
        return compare(golden, outputs, manifest.golden)
    except HealthProofError:
        is_cpu = backend.ep_requested == backend.ep_actual == CPU == manifest.golden.provider
        if is_cpu and is_same_runtime(manifest.target.runtime, backend.runtime, machine_kind()):
            raise
    return compare_meaning(golden, outputs, manifest, decode, backend.ep_actual)


def _limited_run(backend: Backend, tensor: NDArray[np.generic]) -> list[NDArray[np.generic]]:
    """The first run of a model, ended when it takes too long.

    A swap holds the door to further swaps, an update the way to a rollback: neither may wait for
    a model that does not end.

    Raises:
        HealthProofError: It takes longer than `PROOF_LIMIT_S`.
    """
    stop = StopSwitch()
    timer = threading.Timer(PROOF_LIMIT_S, stop.stop)
    timer.daemon = True
    timer.start()
    try:
        return backend.run(tensor, stop)
    except DeadlineError as error:
        raise HealthProofError(
            f"{backend.manifest.name!r} does not end its golden run within {PROOF_LIMIT_S:g} s",
            remedy="Use a smaller model",
        ) from error
    finally:
        timer.cancel()


def _check_decoded(
    decoded: Decoded, outputs: Sequence[NDArray[np.generic]], bundle: Bundle
) -> None:
    reason = not_finite(outputs) or implausible(decoded, len(bundle.manifest.labels))
    if reason:
        raise ModelError(
            f"{bundle.manifest.name!r} on its own golden frame: {reason}",
            remedy="Build the bundle again from a sound model",
        )
