import inspect

import pytest

from squeezenet import errors
from squeezenet.errors import FormatError, MissingDependencyError, SqueezeNetError


def test_every_error_is_a_squeezenet_error():
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), SqueezeNetError)


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("SpecError", ValueError), ("FormatError", ValueError), ("CodecError", ValueError), ("ImageError", ValueError),
        ("QuantizationError", ValueError), ("WeightsError", ValueError), ("DataError", ValueError),
        ("RecipeError", ValueError), ("TrainingError", RuntimeError), ("DownloadError", OSError),
        ("StudyError", RuntimeError), ("ClusterError", RuntimeError),
        ("MissingDependencyError", ImportError),
    ],
)  # fmt: skip
def test_plain_handlers_work(name, builtin):
    assert issubclass(getattr(errors, name), builtin)


def test_tree_in_the_docstring_is_the_tree():
    lines = [line.strip("│├└─ ") for line in errors.__doc__.splitlines() if "─" in line]
    drawn = {line.split()[0] for line in lines}
    assert drawn == set(errors.__all__) - {"SqueezeNetError"}
    indented = {line.split("── ")[1].split()[0] for line in errors.__doc__.splitlines() if "│   " in line}
    subclasses = {name for name in errors.__all__ if getattr(errors, name).__base__ is FormatError}
    assert indented == subclasses


def test_all_errors_are_listed():
    classes = {name for name, value in vars(errors).items() if inspect.isclass(value)}
    assert classes == set(errors.__all__)


def test_missing_extra_names_the_command():
    assert str(MissingDependencyError("torch", "train")) == (
        "this needs `torch`, which is not installed: run `pip install squeezenet[train]`"
    )
