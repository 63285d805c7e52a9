import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

import squeezenet
from source_tree import MODULES

# Run as programs, or read by other means; they offer no names.
WITHOUT_NAMES = {"__main__"}


def defined_names(tree):
    """Public names that a module's own text defines or, in a package's `__init__`, imports from below."""
    names = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
            names.add(node.name)
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize("module", sorted(set(MODULES) - WITHOUT_NAMES))
def test_all_is_sorted_and_complete(module):
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    is_package = MODULES[module].name == "__init__.py"
    is_verb = module.startswith("cli.")
    public = declared_all(tree)
    if public is None:
        # A verb offers its `command` alone; a package may offer nothing.
        assert is_verb or (is_package and defined_names(tree) == set()), f"{module} has no __all__"
        return
    assert public == sorted(public, key=sort_key)
    loaded = importlib.import_module(f"squeezenet.{module}")
    assert [name for name in public if not hasattr(loaded, name)] == []
    assert defined_names(tree) - set(public) == set(), "public by its name, but not in __all__"


def declared_all(tree):
    for node in tree.body:
        if isinstance(node, ast.Assign) and [target.id for target in node.targets if isinstance(target, ast.Name)] == [
            "__all__"
        ]:
            return ast.literal_eval(node.value)
    return None


def sort_key(name):
    """Constants, then classes, then functions, each in order, as ruff sorts them."""
    return (0 if name.isupper() else 1 if name[:1].isupper() else 2, name)


def test_names_of_the_package():
    assert squeezenet.__all__ == sorted(squeezenet.__all__, key=sort_key)
    for name in squeezenet.__all__:
        assert getattr(squeezenet, name).__name__ == {"train": "train_model"}.get(name, name)
    assert set(squeezenet.__all__) <= set(dir(squeezenet))


def test_every_public_name_is_in_the_reference():
    """docs/api.md is generated from docstrings; a name that is missing there is not public."""
    page = (Path(__file__).parents[1] / "docs" / "api.md").read_text(encoding="utf-8")
    listed = re.findall(r"^::: squeezenet\.(\w+)$", page, re.MULTILINE)
    assert sorted(listed) == sorted([*squeezenet.__all__, "errors"])


def test_every_public_name_has_a_docstring():
    for name in squeezenet.__all__:
        assert len(inspect.getdoc(getattr(squeezenet, name)) or "") > 12, name


FUNCTIONS = [name for name in squeezenet.__all__ if inspect.isfunction(getattr(squeezenet, name))]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_documents_its_arguments_and_shows_an_example(name):
    function = getattr(squeezenet, name)
    text = inspect.getdoc(function)
    arguments = text.partition("Args:")[2].partition("\n\n")[0]
    parameters = [parameter for parameter in inspect.signature(function).parameters if parameter not in ("self",)]
    assert [p for p in parameters if len(parameters) > 1 and f"\n    {p}: " not in arguments] == []
    assert ">>> " in text
    assert "Returns:" in text or "Raises:" in text


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'squeezenet' has no attribute 'nothing'"):
        squeezenet.nothing  # noqa: B018


def test_lazy_names_are_those_that_type_checkers_see():
    tree = ast.parse((MODULES["spec"].parent / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.asname or alias.name for node in block.body for alias in node.names}
    assert sorted(seen) == sorted(squeezenet.__all__)


def test_version_is_the_package_s():
    import importlib.metadata

    assert squeezenet.__version__ == importlib.metadata.version("squeezenet")


@pytest.mark.parametrize("folder", ["benchmarks", "tools"])
def test_scripts_import_public_names_that_exist(folder):
    for path in (Path(__file__).parents[1] / folder).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("squeezenet"):
                module = importlib.import_module(node.module)
                for name in (alias.name for alias in node.names):
                    assert not name.startswith("_"), f"{path.name} imports {name}"
                    assert hasattr(module, name), f"{path.name}: {node.module} has no {name}"


def test_results_show_as_tables_in_a_notebook(tmp_path):
    squeezenet.export("cifar10", tmp_path / "net.sqz.html")
    model = squeezenet.create_model("squeezenet1_1", num_classes=10, input_size=32)
    model.labels = squeezenet.Labels(tuple("0123456789"))
    for result, expected in (
        (squeezenet.describe("cifar10"), "<td>fire2</td>"),
        (squeezenet.evaluate(model, "digits"), "<td>top1</td>"),
        (squeezenet.benchmark("cifar10", threads=1, seconds=0.1), "<th>images/s</th>"),
    ):
        assert expected in result._repr_html_()
