"""A new model takes over between two frames, or not at all.

Everything that can fail is done beside the serving model: verify, load, prove on the golden frame,
compare with what is served now. Only then one reference changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from syncline.edge.backend import BackendOptions
from syncline.edge.engine import Engine
from syncline.edge.model.bundle import Bundle
from syncline.edge.model.manifest import Manifest
from syncline.edge.niceness import give_way
from syncline.errors import ManifestError

_BACKGROUND_NICE = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class SwapPolicy:
    """What a new model must be to take over.

    Attributes:
        trusted_keys: Raw Ed25519 public keys; None = a signature is not required.
        min_security_version: Older builds are refused.
        allow_other_labels: Let classes change; consumers must then read them with every result.
        allow_other_input: Let size and type of the input change.
    """

    trusted_keys: Sequence[bytes] | None = None
    min_security_version: int = 0
    allow_other_labels: bool = False
    allow_other_input: bool = False


@dataclass(frozen=True, slots=True)
class SwapEvent:
    """Something happened to a slot's model.

    Attributes:
        raw_ns: When, CLOCK_MONOTONIC_RAW.
        slot: The slot.
        action: `loaded`, `unloadable`, `swapped`, `refused`, `rolled-back`, `reloaded` or
            `reload-failed`.
        name: Of the model.
        version: Of the model.
        digest: Of the bundle; empty when it could not be opened.
        reason: Why it was refused, or loaded anew.
        provider_before: Of `reloaded`: the provider that ran the model until then.
        provider: Of `reloaded`: the provider that runs it from now on.
    """

    raw_ns: int
    slot: str
    action: str
    name: str
    version: str
    digest: str
    reason: str = ""
    provider_before: str = ""
    provider: str = ""


def open_candidate(candidate: Bundle | Path, policy: SwapPolicy) -> Bundle:
    """Verify a candidate again, whoever opened it first; see `Bundle.open`."""
    folder = candidate.folder if isinstance(candidate, Bundle) else candidate
    return Bundle.open(
        folder,
        trusted_keys=policy.trusted_keys,
        min_security_version=policy.min_security_version,
    )


def check_successor(new: Manifest, old: Manifest, policy: SwapPolicy) -> None:
    """Refuse a model that would mean something else to whoever reads the results.

    Raises:
        ManifestError: Naming the difference.
    """
    if new.task != old.task:
        raise ManifestError(
            f"the new model's task is {new.task!r}, the slot serves {old.task!r}",
            remedy="Give it a slot of its own",
        )
    if new.labels != old.labels and not policy.allow_other_labels:
        raise ManifestError(
            f"the new model has {len(new.labels)} labels that are not the {len(old.labels)} "
            "served now",
            remedy="Keep the labels and their order, or set allow_other_labels",
        )
    shapes = (new.input.shape, new.input.dtype), (old.input.shape, old.input.dtype)
    if shapes[0] != shapes[1] and not policy.allow_other_input:
        raise ManifestError(
            f"the new model takes {new.input.dtype}{list(new.input.shape)}, the slot's "
            f"{old.input.dtype}{list(old.input.shape)}",
            remedy="Keep the input, or set allow_other_input",
        )


def load_successor(
    candidate: Bundle | Path, old: Manifest, policy: SwapPolicy, options: BackendOptions
) -> Engine:
    """Verify, compare, load and prove a candidate.

    Raises:
        ModelError: Of the kind that names why the model must not run.
    """
    bundle = open_candidate(candidate, policy)
    check_successor(bundle.manifest, old, policy)
    return Engine.load(bundle, options)


def yield_to_serving(options: BackendOptions) -> None:
    """Make this thread give way to the serving ones; for background loading alone.

    Linux counts niceness per thread. A pool of threads would inherit it, so that a session with
    more than one thread is loaded at full priority.
    """
    if options.intra_op_threads == 1:
        give_way(_BACKGROUND_NICE)
