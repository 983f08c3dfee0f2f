"""All models of a daemon: their slots, and the service that follows each one's channel."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from syncline.edge.config import EdgeConfig
from syncline.edge.model_service import ModelService
from syncline.edge.model_slots import first_bundle, model_slot, shadow_slots, store_folder
from syncline.edge.runner import Runner
from syncline.edge.slot import ModelSlot
from syncline.edge.updater import Fetch, ModelStore, UpdateEvent
from syncline.timebase import RawClock


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
            first_bundle(section, store)
            for section, store in zip(config.models, self._stores, strict=True)
        ]
        self._services: list[ModelService] = []

    def slots(self) -> list[ModelSlot]:
        """Slots that serve, then those of shadows."""
        config = self._config
        serving = [
            model_slot(section, bundle, self._cache, config.runner)
            for section, bundle in zip(config.models, self._bundles, strict=True)
        ]
        shadows = [
            slot
            for section in config.models
            for slot in shadow_slots(section, self._cache, config.runner)
        ]
        return serving + shadows

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
        """Why updates do not work at present, by slot."""
        return [f"model {s.slot}: {s.problem}" for s in self._services if s.problem]
