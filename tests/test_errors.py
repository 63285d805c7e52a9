import ast
import inspect
import re
import tomllib
from pathlib import Path

import pytest

import squeezenet
from squeezenet import errors
from squeezenet.errors import MissingDependencyError, SqueezeNetError


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


def test_all_errors_are_listed():
    classes = {
        name for name, value in vars(errors).items() if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    assert classes == set(errors.__all__)


def test_missing_extra_names_the_command():
    assert str(MissingDependencyError.of(ModuleNotFoundError(name="torch.nn"))) == (
        "this needs `torch`, which is not installed: run `pip install squeezenet[train]`"
    )


def packages_of(extra, extras):
    """Distributions that an extra installs, those of the extras it names included."""
    found = set()
    for requirement in extras[extra]:
        name, inner = re.match(r"([\w-]+)(?:\[([\w,]+)\])?", requirement).groups()
        found |= {package for part in (inner or "").split(",") if part for package in packages_of(part, extras)}
        found.add(name)
    return found


def test_extras_that_messages_name_exist_and_install_the_package():
    extras = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    named = {(errors._PACKAGE_OF.get(module, module), extra) for module, extra in errors._EXTRA_OF.items()}
    assert {extra for _, extra in named} <= set(extras)
    for package, extra in named:
        assert package in packages_of(extra, extras), f"{extra} does not install {package}"


def test_module_that_is_not_found_is_named_with_its_extra_wherever_it_is_imported():
    wanted = r"`scikit-learn`.*squeezenet\[train\]"
    with pytest.raises(MissingDependencyError, match=wanted), MissingDependencyError.named():
        raise ModuleNotFoundError(name="sklearn.datasets")
    with pytest.raises(ModuleNotFoundError, match="^another$"), MissingDependencyError.named():
        raise ModuleNotFoundError("another", name="another")
    for path in Path(squeezenet.__file__).parent.rglob("*.py"):
        made = [
            node
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "MissingDependencyError"
        ]
        assert not made, f"{path} names an extra by itself"
