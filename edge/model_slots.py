"""From a model's section of `edge.toml` to its slot: bundle, keys, policy, provider."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from syncline.edge.backend import BackendOptions
from syncline.edge.model.bundle import Bundle
from syncline.edge.model_config import FIRST_SLOT, ModelSection, RunnerSection
from syncline.edge.queue import QueuePolicy
from syncline.edge.shipped import is_shipped, resolve_bundle
from syncline.edge.slot import ModelSlot
from syncline.edge.swap import SwapPolicy
from syncline.edge.updater import ModelStore
from syncline.errors import ModelError, UsageError
from syncline.link.signing import load_verify_key

_log = logging.getLogger(__name__)


def store_folder(data: Path, section: ModelSection) -> Path:
    """Where a model's updates lie; those of the main one where a device of one model has them."""
    models = data / "models"
    return models if section.name == FIRST_SLOT else models / "slots" / section.name


def bundles_to_run(section: ModelSection, store: ModelStore) -> list[Bundle]:
    """What may run, best first: what ran last, what ran before, what is configured.

    Raises:
        ModelError: Not even the configured bundle may run.
        UsageError: The configured bundle is not there, and there is no other.
    """
    keys = trusted_keys(section)
    found: dict[str, Bundle] = {}
    for name in ("current", "previous") if section.channel else ():
        digest = store.pointer(name)
        if not digest or digest in found:
            continue
        try:
            found[digest] = Bundle.open(
                store.path(digest), trusted_keys=keys, min_security_version=section.security_floor
            )
        except (ModelError, OSError) as error:
            _log.error("%s model %s is not used: %s", name, digest[:12], error)
    try:
        bundle = configured_bundle(section, section.bundle)
        found.setdefault(bundle.digest, bundle)
    except (ModelError, UsageError) as error:
        if not found:
            raise
        _log.error("model %s: the configured bundle is not used: %s", section.name, error)
    return list(found.values())


def configured_bundle(section: ModelSection, name: str) -> Bundle:
    """A bundle that the configuration names: signed by a trusted key, where there are any.

    What ships with the program is as much to be trusted as the program, and carries no signature.

    Raises:
        ModelError: It must not run.
        UsageError: It is not there.
    """
    folder = resolve_bundle(name)
    keys = () if is_shipped(folder) else trusted_keys(section)
    return Bundle.open(
        folder, trusted_keys=keys or None, min_security_version=section.security_floor
    )


def trusted_keys(section: ModelSection) -> tuple[bytes, ...]:
    """The configured keys, raw 32 bytes each.

    Raises:
        ConfigError: A file is absent or holds no Ed25519 key.
    """
    keys = (load_verify_key(Path(path)) for path in section.trusted_keys)
    return tuple(key.public_bytes_raw() for key in keys)


def model_slot(
    section: ModelSection,
    bundle: Bundle,
    cache: Path,
    runner: RunnerSection | None = None,
    fallbacks: Sequence[Bundle] = (),
) -> ModelSlot:
    """The slot of a model that serves."""
    return ModelSlot(
        name=section.name,
        bundle=bundle,
        fallbacks=tuple(fallbacks),
        cameras=section.cameras,
        priority=section.priority,
        max_rate_hz=section.max_rate_hz or None,
        policy=QueuePolicy(section.policy),
        queue=section.queue,
        deadline_ns=round(section.deadline_ms * 1e6),
        backend=backend_options(section, cache, runner),
        swap_policy=swap_policy(section),
    )


def shadow_slots(
    section: ModelSection, cache: Path, runner: RunnerSection | None = None
) -> list[ModelSlot]:
    """The slot of its shadow, when one is configured.

    Raises:
        ModelError: The bundle must not run.
        UsageError: It is not there.
    """
    if not section.shadow:
        return []
    return [
        ModelSlot(
            name=section.shadow_slot,
            bundle=configured_bundle(section, section.shadow),
            shadow_of=section.name,
            backend=backend_options(section, cache, runner),
        )
    ]


def backend_options(
    section: ModelSection, cache: Path | None, runner: RunnerSection | None = None
) -> BackendOptions:
    """How a model and its shadow are run."""
    return BackendOptions(
        intra_op_threads=section.threads,
        spinning=runner is not None and runner.spinning,
        cache_dir=cache,
        plugins=tuple((name, Path(path)) for name, path in section.plugins.items()),
        providers=section.providers or None,
        strict_provider=section.strict_provider,
        provider_options=section.provider_options,
    )


def swap_policy(section: ModelSection) -> SwapPolicy:
    """What a new model must be to take over on this device."""
    return SwapPolicy(
        trusted_keys=trusted_keys(section) or None,
        min_security_version=section.security_floor,
        allow_other_labels=section.allow_other_labels,
        allow_other_input=section.allow_other_input,
    )
