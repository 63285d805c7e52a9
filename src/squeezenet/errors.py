"""Every error this package raises on purpose.

Catch `SqueezeNetError` for all of them; each is also the builtin that plain handlers expect.

    SqueezeNetError
    ├── SpecError (ValueError)               an architecture that cannot exist
    ├── FormatError (ValueError)             a `.sqz` file that breaks docs/format.md
    │   ├── BadMagic                         not a `.sqz` file at all
    │   ├── UnsupportedVersion               written by a newer format, or an unknown critical chunk
    │   ├── Truncated                        ends before its own lengths say
    │   ├── ChecksumMismatch                 bytes changed since they were written
    │   ├── LimitExceeded                    asks for more memory or time than allowed
    │   └── BadTable                         fields that contradict each other
    ├── CodecError (ValueError)              values that the weight coder cannot hold
    ├── QuantizationError (ValueError)       a float network that has no integer form
    ├── WeightsError (ValueError)            a weight file that does not fit a network
    ├── ImageError (ValueError)              a file that is no readable image
    ├── DataError (ValueError)               a data set that cannot be used as it is
    ├── RecipeError (ValueError)             a recipe with unknown or impossible settings
    ├── TrainingError (RuntimeError)         a run that cannot go on
    ├── StudyError (RuntimeError)            an exploration that cannot begin or go on
    ├── ClusterError (RuntimeError)          machines that cannot be reached, or that went away
    ├── DownloadError (OSError)              weights that could not be fetched
    └── MissingDependencyError (ImportError) an extra that is not installed

`assert` stands only for states that would be a mistake of this package itself.
"""

__all__ = [
    "BadMagic",
    "BadTable",
    "ChecksumMismatch",
    "ClusterError",
    "CodecError",
    "DataError",
    "DownloadError",
    "FormatError",
    "ImageError",
    "LimitExceeded",
    "MissingDependencyError",
    "QuantizationError",
    "RecipeError",
    "SpecError",
    "SqueezeNetError",
    "StudyError",
    "TrainingError",
    "Truncated",
    "UnsupportedVersion",
    "WeightsError",
]


class SqueezeNetError(Exception):
    """Any error that this package raises on purpose."""


class SpecError(SqueezeNetError, ValueError):
    """An architecture that cannot exist."""


class FormatError(SqueezeNetError, ValueError):
    """A `.sqz` file that breaks docs/format.md."""


class BadMagic(FormatError):
    """The first bytes are not those of a `.sqz` file."""


class UnsupportedVersion(FormatError):
    """A newer format version, or a critical chunk this reader does not know."""


class Truncated(FormatError):
    """The data ends before its own lengths say that it does."""


class ChecksumMismatch(FormatError):
    """The bytes are not the ones that were written."""


class LimitExceeded(FormatError):
    """The file asks for more memory or time than the limits allow."""


class BadTable(FormatError):
    """Fields that contradict each other or lie outside their range."""


class CodecError(SqueezeNetError, ValueError):
    """Values that the weight coder cannot hold."""


class QuantizationError(SqueezeNetError, ValueError):
    """A float network that has no integer form."""


class WeightsError(SqueezeNetError, ValueError):
    """A weight file that does not fit a network."""


class ImageError(SqueezeNetError, ValueError):
    """A file that is no readable image."""


class DataError(SqueezeNetError, ValueError):
    """A data set that cannot be used as it is."""


class RecipeError(SqueezeNetError, ValueError):
    """A recipe with unknown or impossible settings."""


class TrainingError(SqueezeNetError, RuntimeError):
    """A training run that cannot go on."""


class StudyError(SqueezeNetError, RuntimeError):
    """An exploration of architectures that cannot begin or go on."""


class ClusterError(SqueezeNetError, RuntimeError):
    """Machines that cannot be reached, or that went away."""


class DownloadError(SqueezeNetError, OSError):
    """Weights that could not be fetched."""


class MissingDependencyError(SqueezeNetError, ImportError):
    """An optional dependency that is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"this needs `{package}`, which is not installed: run `pip install squeezenet[{extra}]`")
