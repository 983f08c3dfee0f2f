"""All models of a daemon: their slots, and the service that follows each one's channel."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from syncline.edge.config import EdgeConfig
from syncline.edge.model.bundle import Bundle
from syncline.edge.model_config import ModelSection
from syncline.edge.model_service import ModelService
from syncline.edge.model_slots import bundles_to_run, model_slot, shadow_slots, store_folder
from syncline.edge.runner import Runner
from syncline.edge.shadow import check_comparable
from syncline.edge.slot import ModelSlot
from syncline.edge.updater import Fetch, ModelStore, UpdateEvent
from syncline.errors import ManifestError
from syncline.timebase import RawClock

_log = logging.getLogger(__name__)


class ModelSet:
    """The models of `edge.toml`, the main one first.

    Args:
        config: `edge.toml`.
        data: Folder of the device.

    Raises:
        ModelError: A bundle must not run.
        UsageError: A bundle is not there.
    """

    def __init__(self, config: EdgeConfig, data: Path) -> None:
        self._config = config
        self._cache = data / "model-cache"
        self._stores = [ModelStore(store_folder(data, section)) for section in config.models]
        self._bundles = [
            bundles_to_run(section, store)
            for section, store in zip(config.models, self._stores, strict=True)
        ]
        self._services: list[ModelService] = []
        self._left_out: list[str] = []

    def slots(self) -> list[ModelSlot]:
        """Slots that serve, then those of shadows."""
        config = self._config
        serving = [
            model_slot(section, bundle, self._cache, config.runner, fallbacks)
            for section, (bundle, *fallbacks) in zip(config.models, self._bundles, strict=True)
        ]
        shadows = [
            slot
            for section, (bundle, *_) in zip(config.models, self._bundles, strict=True)
            for slot in shadow_slots(section, self._cache, config.runner)
            if self._is_comparable(section, bundle, slot)
        ]
        return serving + shadows

    def _is_comparable(self, section: ModelSection, bundle: Bundle, shadow: ModelSlot) -> bool:
        """Whether a shadow fits what an update made of its model: a device starts without it.

        A configured pair that does not fit is the runner's to refuse.
        """
        if not section.channel:
            return True
        try:
            check_comparable(bundle.manifest, shadow.bundle.manifest)
        except ManifestError as error:
            self._left_out.append(f"model {section.name}: runs without its shadow: {error}")
            _log.warning("%s", self._left_out[-1])
            return False
        return True

    def follow(
        self,
        runner: Runner,
        fetch: Fetch,
        clock: RawClock,
        report: Callable[[str, UpdateEvent], None],
        stack: ExitStack,
    ) -> None:
        """Start a service for each model with a channel; `stack` ends them.

        Args:
            runner: Serves the models, loaded already.
            fetch: Fetches resources over the link.
            clock: Times the probation.
            report: Told the slot and what the service did there.
            stack: Gets their end.
        """
        for section, store in zip(self._config.models, self._stores, strict=True):
            if not section.channel:
                continue

            def told(event: UpdateEvent, slot: str = section.name) -> None:
                report(slot, event)

            service = ModelService(section, store, runner, fetch, clock, told)
            service.start()
            stack.callback(service.close)
            self._services.append(service)

    def notice(self, topic: str) -> None:
        """The collector says that a channel moved."""
        for service in self._services:
            service.notice(topic)

    def check(self) -> None:
        """Take back what was swapped in and proves bad; called with each health."""
        for service in self._services:
            service.check()

    def problems(self) -> list[str]:
        """Why updates do not work at present, and which shadows do not run, by slot."""
        return self._left_out + [
            f"model {s.slot}: {s.problem}" for s in self._services if s.problem
        ]
