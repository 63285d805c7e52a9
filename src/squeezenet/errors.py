"""Every error this package raises on purpose.

Catch `SqueezeNetError` for all of them; each is also the builtin that plain handlers expect. Each
has a `reason`, and a `source` where a file or an image is to blame; `str()` joins them.
`assert` stands only for states that would be a mistake of this package itself.
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
    """Any error that this package raises on purpose."""

    def __init__(self, reason: object = "", *, source: str | os.PathLike[str] | None = None) -> None:
        """Describe what went wrong, and in which file or image."""
        super().__init__(str(reason))
        self.reason = str(reason)
        self.source = None if source is None else os.fspath(source)

    def __str__(self) -> str:
        return self.reason if self.source is None else f"{self.source}: {self.reason}"

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.reason, self.source)

    def at(self, source: str | os.PathLike[str]) -> Self:
        """Name the file or image to blame; an error that already names one keeps it."""
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
    """A `.sqz` file that breaks docs/format.md."""


class BadMagic(FormatError):
    """The first bytes are not those of a `.sqz` file."""


class UnsupportedVersion(FormatError):
    """A newer format version, or a critical chunk that this reader does not support."""


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
    """A file that is not a readable image."""


class DataError(SqueezeNetError, ValueError):
    """A data set that cannot be used as it is."""


class RecipeError(SqueezeNetError, ValueError):
    """A recipe with unknown or impossible settings."""


class TrainingError(SqueezeNetError, RuntimeError):
    """A training run that cannot continue."""


class StudyError(SqueezeNetError, RuntimeError):
    """An exploration of architectures that cannot begin or continue."""


class ClusterError(SqueezeNetError, RuntimeError):
    """Machines that cannot be reached, or that were lost."""


class CompressionError(SqueezeNetError, ValueError):
    """Options that exclude each other, or photos that are missing, for a compression."""


class ModelNotFoundError(SqueezeNetError, FileNotFoundError):
    """A MODEL that names no file, no run folder and no network of the package."""


class DownloadError(SqueezeNetError, OSError):
    """Weights that could not be fetched."""


class MissingDependencyError(SqueezeNetError, ImportError):
    """An optional dependency that is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"this needs `{package}`, which is not installed: run `pip install squeezenet[{extra}]`")

    @classmethod
    def of(cls, error: ModuleNotFoundError) -> ModuleNotFoundError | MissingDependencyError:
        """Name the extra that has a module which was not found; the error itself, if no extra has it."""
        module = (error.name or "").partition(".")[0]
        return cls(_PACKAGE_OF.get(module, module), _EXTRA_OF[module]) if module in _EXTRA_OF else error

    @classmethod
    @contextlib.contextmanager
    def named(cls) -> Iterator[None]:
        """Name the extra that has a module which is imported in the block and not found."""
        try:
            yield
        except ModuleNotFoundError as error:
            raise cls.of(error) from None
