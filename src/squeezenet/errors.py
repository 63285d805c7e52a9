"""All errors that this package raises deliberately.

Catch `SqueezeNetError` for all of them; each subclass is also a subclass of the matching builtin. Each error has a
`reason` and, if a file or an image caused it, a `source`; `str()` joins them. `assert` is used only for states that
would be a bug of this package.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Self

__all__ = [
    "BadMagic", "BadTable", "ChecksumMismatch", "ClusterError", "CodecError", "CompressionError", "DataError",
    "DownloadError", "FormatError", "ImageError", "LimitExceeded", "MissingDependencyError", "ModelNotFoundError",
    "QuantizationError", "RecipeError", "SpecError", "SqueezeNetError", "StudyError", "TrainingError", "Truncated",
    "UnsupportedVersion", "WeightsError",
]  # fmt: skip


class SqueezeNetError(Exception):
    """Any error that this package raises deliberately."""

    def __init__(self, reason: object = "", *, source: str | os.PathLike[str] | None = None) -> None:
        """Describe the problem and, optionally, the file or image that caused it."""
        super().__init__(str(reason))
        self.reason = str(reason)
        self.source = None if source is None else os.fspath(source)

    def __str__(self) -> str:
        return self.reason if self.source is None else f"{self.source}: {self.reason}"

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.reason, self.source)

    def at(self, source: str | os.PathLike[str]) -> Self:
        """Name the file or image that caused the error, unless the error already names one."""
        if self.source is None:
            self.source = os.fspath(source)
        return self


# Module -> the extra that installs it; a test holds them to pyproject.toml.
_EXTRA_OF = {
    **dict.fromkeys(("torch", "safetensors", "sklearn", "scipy", "rich", "matplotlib", "kornia"), "train"),
    "jinja2": "report", "optuna": "explore", "ray": "ray", "pyarrow": "ray", "onnx": "export",
    "flatbuffers": "export", "tflite": "export", "google": "import", "h5py": "import", "webdataset": "webdataset",
    "tensorboard": "tensorboard",
}  # fmt: skip
# What installs a module, where it is not its name.
_PACKAGE_OF = {"sklearn": "scikit-learn", "flatbuffers": "tflite", "google": "protobuf"}


def _rebuild(kind: type[SqueezeNetError], reason: str, source: str | None) -> SqueezeNetError:
    error = kind.__new__(kind)
    SqueezeNetError.__init__(error, reason, source=source)
    return error


class SpecError(SqueezeNetError, ValueError):
    """An architecture that cannot exist."""


class FormatError(SqueezeNetError, ValueError):
    """A `.sqz` file that violates docs/format.md."""


class BadMagic(FormatError):
    """The first bytes are not those of a `.sqz` file."""


class UnsupportedVersion(FormatError):
    """A newer format version, or a critical chunk that this reader does not support."""


class Truncated(FormatError):
    """The data is shorter than its own length fields state."""


class ChecksumMismatch(FormatError):
    """The bytes are not the ones that were written."""


class LimitExceeded(FormatError):
    """The file asks for more memory or time than the limits allow."""


class BadTable(FormatError):
    """Fields that contradict each other or lie outside their range."""


class CodecError(SqueezeNetError, ValueError):
    """Values that the weight coder cannot encode."""


class QuantizationError(SqueezeNetError, ValueError):
    """A float network that has no integer form."""


class WeightsError(SqueezeNetError, ValueError):
    """A weight file that does not fit a network."""


class ImageError(SqueezeNetError, ValueError):
    """A file that is not a readable image."""


class DataError(SqueezeNetError, ValueError):
    """A data set that cannot be used as it is."""


class RecipeError(SqueezeNetError, ValueError):
    """A recipe with unknown or impossible settings."""


class TrainingError(SqueezeNetError, RuntimeError):
    """A training run that cannot continue."""


class StudyError(SqueezeNetError, RuntimeError):
    """An exploration of architectures that cannot start or continue."""


class ClusterError(SqueezeNetError, RuntimeError):
    """A cluster that cannot be reached, or that failed."""


class CompressionError(SqueezeNetError, ValueError):
    """Options of a compression that cannot be combined, or missing photos."""


class ModelNotFoundError(SqueezeNetError, FileNotFoundError):
    """A MODEL that is neither a file, nor a run folder, nor the name of a network."""


class DownloadError(SqueezeNetError, OSError):
    """Weights that could not be downloaded."""


class MissingDependencyError(SqueezeNetError, ImportError):
    """An optional dependency that is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"this needs `{package}`, which is not installed: run `pip install squeezenet[{extra}]`")

    @classmethod
    def of(cls, error: ModuleNotFoundError) -> ModuleNotFoundError | MissingDependencyError:
        """Return an error that names the extra to install, or `error` itself if no extra contains the module."""
        module = (error.name or "").partition(".")[0]
        return cls(_PACKAGE_OF.get(module, module), _EXTRA_OF[module]) if module in _EXTRA_OF else error

    @classmethod
    @contextlib.contextmanager
    def named(cls) -> Iterator[None]:
        """Convert a failed import in the block to an error that names the extra with the missing module."""
        try:
            yield
        except ModuleNotFoundError as error:
            raise cls.of(error) from None
