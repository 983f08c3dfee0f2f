"""Every error that syncline raises on purpose, drawn as a tree.

```
SynclineError                     exit code 1
├── UsageError                    2   a flag, path or combination that cannot work
│   └── ConfigError               2   a key of the configuration file
├── InputError                    3   data from outside that cannot be used
│   ├── MediaError                3   video, image or image folder
│   ├── LogError                  3   a recorded log: not one, damaged, truncated
│   ├── SensorDataError           3   a frame, stamp or mode that contradicts itself
│   ├── MeasurementError          3   a time measurement that cannot be used
│   └── MessageError              3   a payload or packet that does not decode
├── ModelError                    4   a model or bundle that must not run
│   ├── ManifestError             4   a key of manifest.toml, or model and manifest disagree
│   ├── IntegrityError            4   digest or signature does not match
│   ├── HealthProofError          4   golden output not reproduced
│   ├── GateError                 4   refused by the accuracy or speed gate
│   ├── ProviderError             4   accelerator asked for and absent
│   └── InferenceError            4   the runtime failed on a frame
│       └── DeadlineError         4   a run was stopped at its deadline
├── StorageError                  5   disk full, read-only, I/O error
│   └── QuotaError                5   a byte budget is used up
├── LinkError                     6   the other end cannot be reached or refused us
│   └── AuthenticationError       6   key unknown, revoked, or not the claimed identity
├── DeviceError                   7   a camera, receiver or clock device is missing or gone
│   └── PermissionDeniedError     7   the device is there; we may not use it
├── ClockError                    8   a clock or mapping cannot answer
│   └── UnknownSegmentError       8   a record names a mapping segment that is not there
└── ConflictError                 9   compare-and-swap lost: somebody changed it first
```

A message is one line: what is wrong (field, value, limit) and what to do about it.
"""

from __future__ import annotations


class SynclineError(Exception):
    """Root of every deliberate error.

    Args:
        message: What is wrong, naming the field, the value and the limit.
        remedy: What the user can do about it, as an imperative sentence.

    Attributes:
        exit_code: Exit status of the command line when this error ends it.
    """

    exit_code = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        """One line: the message, then the remedy."""
        return f"{self.message}. {self.remedy}" if self.remedy else self.message


class UsageError(SynclineError):
    """A flag, path or combination of options that cannot work."""

    exit_code = 2


class ConfigError(UsageError):
    """A key of the configuration file is unknown, missing or has an impossible value."""


class InputError(SynclineError):
    """Data from outside that cannot be used."""

    exit_code = 3


class MediaError(InputError):
    """A video, image or image folder that cannot be read."""


class LogError(InputError):
    """A recorded log that is not one, is damaged or is truncated."""


class SensorDataError(InputError):
    """A frame, stamp or sensor mode that contradicts itself or the data."""


class MeasurementError(InputError):
    """A time measurement that cannot be used."""


class MessageError(InputError):
    """A payload or packet that does not decode or breaks its limits."""


class ModelError(SynclineError):
    """A model or bundle that must not run."""

    exit_code = 4


class ManifestError(ModelError):
    """A key of manifest.toml is wrong, or model and manifest disagree."""


class IntegrityError(ModelError):
    """A digest or signature does not match the bytes."""


class HealthProofError(ModelError):
    """The golden output was not reproduced."""


class GateError(ModelError):
    """The accuracy or speed gate refused the model."""


class ProviderError(ModelError):
    """The execution provider asked for is absent or did not take the graph."""


class InferenceError(ModelError):
    """The runtime failed on a frame; the next one may be good."""


class DeadlineError(InferenceError):
    """A run was stopped at its deadline."""


class StorageError(SynclineError):
    """The disk is full, read-only or failing."""

    exit_code = 5


class QuotaError(StorageError):
    """A byte budget is used up."""


class LinkError(SynclineError):
    """The other end cannot be reached or refused us."""

    exit_code = 6


class AuthenticationError(LinkError):
    """A key is unknown, revoked, or does not belong to the claimed identity."""


class DeviceError(SynclineError):
    """A camera, receiver or clock device is missing or gone."""

    exit_code = 7


class PermissionDeniedError(DeviceError):
    """The device is there; this process may not use it."""


class ClockError(SynclineError):
    """A clock or mapping cannot answer."""

    exit_code = 8


class UnknownSegmentError(ClockError):
    """A record names a mapping segment that is not there."""


class ConflictError(SynclineError):
    """Compare-and-swap lost: somebody changed the thing first."""

    exit_code = 9
