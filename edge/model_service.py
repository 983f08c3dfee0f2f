"""The models of a daemon: which one to begin with, updates over the link, going back by itself."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from syncline.edge.backend import BackendOptions
from syncline.edge.config import ModelSection
from syncline.edge.model.bundle import Bundle
from syncline.edge.queue import QueuePolicy
from syncline.edge.runner import Runner
from syncline.edge.shipped import resolve_bundle
from syncline.edge.slot import ModelSlot
from syncline.edge.swap import SwapEvent, SwapPolicy
from syncline.edge.updater import Fetch, ModelStore, ModelUpdater, UpdateEvent
from syncline.errors import LinkError, ModelError, SynclineError, UsageError
from syncline.link.signing import load_verify_key
from syncline.timebase import NS_PER_S, RawClock

_log = logging.getLogger(__name__)

SLOT = "primary"
PROBATION_NS = 30 * NS_PER_S
"""A swapped model that turns out degraded within this time is taken back."""
RETRY_S = 10.0


def first_bundle(section: ModelSection, store: ModelStore) -> Bundle:
    """The bundle to begin with: the one that ran last, the one before, or the configured one.

    Raises:
        ModelError: Not even the configured bundle may run.
        UsageError: The configured bundle is not there.
    """
    keys = trusted_keys(section)
    for name in ("current", "previous") if section.channel else ():
        digest = store.pointer(name)
        if not digest:
            continue
        try:
            return Bundle.open(
                store.path(digest), trusted_keys=keys, min_security_version=section.security_floor
            )
        except (ModelError, OSError) as error:
            _log.error("%s model %s is not used: %s", name, digest[:12], error)
    return Bundle.open(
        resolve_bundle(section.bundle),
        trusted_keys=None,
        min_security_version=section.security_floor,
    )


def trusted_keys(section: ModelSection) -> tuple[bytes, ...]:
    """The configured keys, raw 32 bytes each.

    Raises:
        ConfigError: A file is absent or holds no Ed25519 key.
    """
    keys = (load_verify_key(Path(path)) for path in section.trusted_keys)
    return tuple(key.public_bytes_raw() for key in keys)


def model_slot(section: ModelSection, bundle: Bundle, cache: Path) -> ModelSlot:
    """The slot of a daemon's model."""
    return ModelSlot(
        name=SLOT,
        bundle=bundle,
        policy=QueuePolicy(section.policy),
        queue=section.queue,
        deadline_ns=round(section.deadline_ms * 1e6),
        backend=_backend(section, cache),
    )


def _backend(section: ModelSection, cache: Path) -> BackendOptions:
    return BackendOptions(
        intra_op_threads=section.threads,
        cache_dir=cache,
        plugins=tuple((name, Path(path)) for name, path in section.plugins.items()),
        providers=section.providers or None,
        strict_provider=section.strict_provider,
        provider_options=section.provider_options,
    )


def shadow_slots(section: ModelSection, cache: Path) -> list[ModelSlot]:
    """The slot of the shadow model, when one is configured.

    Raises:
        ModelError: The bundle must not run.
        UsageError: It is not there.
    """
    if not section.shadow:
        return []
    bundle = Bundle.open(
        resolve_bundle(section.shadow),
        trusted_keys=None,
        min_security_version=section.security_floor,
    )
    backend = _backend(section, cache)
    return [ModelSlot(name="shadow", bundle=bundle, shadow_of=SLOT, backend=backend)]


def swap_policy(section: ModelSection) -> SwapPolicy:
    """What a new model must be to take over on this device."""
    keys = trusted_keys(section)
    return SwapPolicy(
        trusted_keys=keys or None,
        min_security_version=section.security_floor,
        allow_other_labels=True,
        allow_other_input=True,
    )


class ModelService:
    """Follows a channel in a thread of its own and keeps watch over what it swapped in.

    Args:
        section: `[model]` of the configuration.
        store: Where bundles lie.
        runner: Serves the model.
        fetch: Fetches resources over the link.
        clock: Times the probation.
        report: Told of every act.

    Attributes:
        problem: Why updates do not work at present; empty when they do, or the link is merely down.

    Raises:
        UsageError: A channel is followed without trusted keys.
    """

    def __init__(
        self,
        section: ModelSection,
        store: ModelStore,
        runner: Runner,
        fetch: Fetch,
        clock: RawClock,
        report: Callable[[UpdateEvent], None],
    ) -> None:
        if not section.trusted_keys:
            raise UsageError(
                "model.channel is set and model.trusted_keys is empty: updates must be signed",
                remedy="Make a key with: syncline keys signing NAME, and list its public half",
            )
        self._runner = runner
        self._clock = clock
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._swapped_ns: int | None = None
        self._state = threading.Lock()  # for the probation, which two threads write
        self.problem = ""
        bundle = runner.health().slots[0]
        self._updater = ModelUpdater(
            store,
            name=bundle.model_name,
            channel=section.channel,
            trusted_keys=trusted_keys(section),
            security_floor=section.security_floor,
            fetch=fetch,
            swap=self._swap,
            revert=self._revert,
            report=report,
            running_digest=bundle.model_digest,
        )
        self._thread = threading.Thread(target=self._run, name="model-updates", daemon=True)

    def _swap(self, bundle: Bundle) -> None:
        self._runner.swap(bundle, SLOT)
        with self._state:
            self._swapped_ns = self._clock.raw_ns()

    def _revert(self) -> SwapEvent:
        """Go back, once: with nothing to go back to, asking again at each health helps nobody."""
        with self._state:
            self._swapped_ns = None
        return self._runner.rollback(SLOT)

    def _on_probation(self) -> bool:
        with self._state:
            if self._swapped_ns is None:
                return False
            if self._clock.raw_ns() - self._swapped_ns > PROBATION_NS:
                self._swapped_ns = None
            return self._swapped_ns is not None

    def start(self) -> None:
        """Ask where the channel stands, then wait for notices."""
        self._thread.start()
        self._wake.set()

    def notice(self, topic: str) -> None:
        """The collector says that a channel moved."""
        if topic == self._updater.topic:
            self._wake.set()

    def check(self) -> None:
        """Take a swapped model back when it turns out degraded; called with each health.

        Never waits: while the next model is being swapped in it leaves the matter to the next call.
        """
        if not self._on_probation():
            return
        slot = self._runner.health().slots[0]
        if slot.state != "degraded":
            return
        try:
            if self._updater.roll_back(slot.detail, slot.model_digest):
                self._wake.set()  # what the disk did not take is written by `update`
        except SynclineError as error:
            self.problem = f"cannot go back to the model before: {error}"
            _log.error("%s", self.problem)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait()
            self._wake.clear()
            if self._stop.is_set():
                return
            if not self._try_update():
                self._stop.wait(RETRY_S)
                self._wake.set()

    def _try_update(self) -> bool:
        """One update; False when it has to be tried again. The thread outlives whatever comes."""
        try:
            self._updater.update()
        except (LinkError, UsageError) as error:
            _log.info("model update waits: %s", error)
            return False
        except SynclineError as error:
            self.problem = f"model update failed: {error}"
            _log.error("%s", self.problem)
            return False
        except Exception as error:  # noqa: BLE001 - the last resort: without it updates end unseen
            self.problem = f"model update failed: {type(error).__name__}: {error}"
            _log.exception("model update failed")
            return False
        self.problem = ""
        return True

    def close(self) -> None:
        """End the thread; a fetch in flight resumes at the next start."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)
