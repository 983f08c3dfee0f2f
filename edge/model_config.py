"""`[model]`, `[[model]]` and `[runner]` of `edge.toml`: which models run, and how they share."""

from __future__ import annotations

from itertools import combinations
from typing import Annotated, Literal

import msgspec

from syncline.config import Section
from syncline.edge.queue import MAX_LANES
from syncline.errors import ConfigError

MAX_MODELS = 8
"""With a shadow each and the most cameras they fill the runner's lanes."""
MAX_CAMERAS = MAX_LANES // (2 * MAX_MODELS)
FIRST_SLOT = "primary"

Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_-]{1,64}$")]


class ModelSection(Section, frozen=True, kw_only=True):
    """A model that runs.

    Attributes:
        name: Name of its slot, in health, drops and events; with several, each has its own.
        bundle: Folder of a model bundle, or the name of one that ships with syncline.
        shadow: Bundle that runs beside it in slack, only to be compared; empty: none.
        cameras: Names of the cameras that it sees; empty: all.
        priority: Where frames wait for several models, those of the higher go first.
        max_rate_hz: Frames per second and camera that it is asked for; 0: all.
        channel: Follow this channel of the collector's registry; empty: never update.
        trusted_keys: Files of Ed25519 public keys; a bundle must be signed by one of them, but for
            those that ship with syncline. Empty: only the bundle named here runs, and updates are
            refused.
        allow_other_labels: Let an update change the classes: whoever reads results must then read
            their names by the digest that each carries.
        allow_other_input: Let an update change size and type of the input.
        policy: What happens to frames that come faster than they can be processed: `latest` keeps
            the newest, `fifo` queues up to `queue`, `block` holds the camera back.
        queue: Frames held under `fifo`.
        deadline_ms: Frames older than this are dropped before inference; a run past it is ended.
        threads: Threads of one inference.
        security_floor: Least `security_version` accepted.
        plugins: Libraries of execution providers that the runtime does not bring, by the
            provider's name; a bundle names the provider that it wants.
        providers: Execution providers in order of preference, instead of the bundle's.
        strict_provider: Whether the first must run the model, instead of what the bundle says.
        provider_options: Options by the provider's name; `device` is the kind that a plug-in takes.
    """

    name: Name = FIRST_SLOT
    bundle: str = "road-detector"
    shadow: str = ""
    cameras: tuple[Name, ...] = ()
    priority: Annotated[int, msgspec.Meta(ge=-100, le=100)] = 0
    max_rate_hz: Annotated[float, msgspec.Meta(ge=0.0, le=1e4)] = 0.0
    channel: str = ""
    trusted_keys: tuple[str, ...] = ()
    allow_other_labels: bool = False
    allow_other_input: bool = False
    policy: Literal["latest", "fifo", "block"] = "latest"
    queue: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 8
    deadline_ms: Annotated[float, msgspec.Meta(ge=1.0, le=600_000.0)] = 500.0
    threads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    security_floor: Annotated[int, msgspec.Meta(ge=0, le=2**62)] = 0
    plugins: dict[str, str] = msgspec.field(default_factory=dict)
    providers: Annotated[tuple[str, ...], msgspec.Meta(max_length=8)] = ()
    strict_provider: bool | None = None
    provider_options: dict[str, dict[str, str]] = msgspec.field(default_factory=dict)

    @property
    def shadow_slot(self) -> str:
        """Name of the slot of its shadow."""
        return "shadow" if self.name == FIRST_SLOT else f"{self.name}-shadow"


class RunnerSection(Section, frozen=True, kw_only=True):
    """What all models share.

    Attributes:
        workers: Threads that run models. One serves a small device best; with more, several models
            or cameras are served at once, each inference with the model's own `threads`.
        spinning: Let idle threads of an inference burn CPU, for a lower latency of the next one.
    """

    workers: Annotated[int, msgspec.Meta(ge=1, le=16)] = 1
    spinning: bool = False


Models = (
    ModelSection
    | Annotated[tuple[ModelSection, ...], msgspec.Meta(min_length=1, max_length=MAX_MODELS)]
)
"""One `[model]`, or any number of `[[model]]`."""


def check_models(models: tuple[ModelSection, ...], cameras: list[str], where: str) -> None:
    """Refuse models that contradict each other or see cameras that are not there.

    Raises:
        ConfigError: The message begins with `where` and names the model.
    """
    _check_names(models, where)
    for model in models:
        if model.channel and not model.trusted_keys:
            raise ConfigError(
                f"{where}: model {model.name}: channel is set and trusted_keys is empty: updates "
                "must be signed",
                remedy="Make a key with: syncline keys signing NAME, and list its public half",
            )
        unknown = sorted(set(model.cameras) - set(cameras))
        if unknown:
            raise ConfigError(
                f"{where}: model {model.name}: cameras names {', '.join(unknown)}, "
                f"there is {', '.join(cameras)}",
                remedy="Give names of [[camera]], or none for all",
            )
    for one, other in combinations(models, 2):
        shared = set(one.cameras or cameras) & set(other.cameras or cameras)
        if one.bundle == other.bundle and shared:
            raise ConfigError(
                f"{where}: models {one.name} and {other.name} run {one.bundle} on "
                f"{', '.join(sorted(shared))}: their results could not be told apart",
                remedy="Give them other bundles, or cameras of their own",
            )


def _check_names(models: tuple[ModelSection, ...], where: str) -> None:
    names = [model.name for model in models]
    slots = names + [model.shadow_slot for model in models if model.shadow]
    twice = sorted({name for name in slots if slots.count(name) > 1})
    if twice:
        raise ConfigError(
            f"{where}: two models, or a model and a shadow, share the name {', '.join(twice)}",
            remedy="Give every [[model]] its own name; a shadow is called NAME-shadow",
        )
