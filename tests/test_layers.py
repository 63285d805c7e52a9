"""Imports go down the layers of the design and never in a circle; function-level imports count as well."""

import ast
import graphlib

import pytest

from source_tree import MODULES, imports_of

# From the ground up. A module may import what lies lower, and its own package; packages of one level (the verbs' work)
# may import each other as long as no circle arises.
LEVELS = [
    {"errors"},
    {"text", "process"},
    {"images", "progress"},
    {"spec", "labels", "files", "preprocess", "native_library", "container", "bundled"},
    {"accounting", "architectures", "network", "unknown", "zoo"},
    {"codec"},
    {"fileformat"},
    {"engine"},
    {"coded"},
    {"classifier", "memory"},
    {"data", "timing", "imports"},
    {"models"},
    {"description"},
    {"quantization"},
    {"evaluation"},
    {"checking"},
    {"exports", "cluster", "reports"},
    {"teaching", "training"},
    {"compression", "exploration"},
    {"cli"},
    {"__main__"},
]
LEVEL_OF = {layer: level for level, layers in enumerate(LEVELS) for layer in layers}
# Used where it is installed, and done without where it is not.
OPTIONAL = {"progress": {"rich"}}
LOWEST_WITH_TORCH = LEVEL_OF["models"]


def layer_of(module):
    return module.split(".")[0]


def level_of(module):
    return LEVEL_OF.get(layer_of(module), len(LEVELS))


def test_nothing_imports_the_package_itself():
    """`squeezenet` is made of its rooms; only the command line and programs stand above it."""
    for module in MODULES:
        if layer_of(module) not in ("cli", "__main__"):
            tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
            bare = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module is None]
            depth = module.count(".") + (MODULES[module].name == "__init__.py")
            assert [alias.name for node in bare if node.level > depth for alias in node.names] == [], module


def test_every_module_has_a_level():
    assert sorted({layer_of(module) for module in MODULES} - set(LEVEL_OF)) == []
    assert {"errors", "codec.range_coder", "engine.reference", "text"} <= set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module):
    for target in imports_of(module)[0]:
        is_inside = layer_of(module) == layer_of(target)
        assert is_inside or level_of(target) < level_of(module), f"{module} imports {target}"


def test_preprocess_is_a_leaf():
    assert imports_of("preprocess")[0] == {"errors", "images"}


def circle(edges):
    try:
        graphlib.TopologicalSorter(edges).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_no_module_imports_itself_in_a_circle():
    # A package's `__init__` gathers its modules; modules name each other.
    edges = {module: imports_of(module)[0] for module in MODULES}
    assert circle(edges) == []


def test_no_package_imports_itself_in_a_circle():
    edges = {}
    for module in MODULES:
        edges.setdefault(layer_of(module), set()).update(map(layer_of, imports_of(module)[0]))
    assert circle({package: targets - {package} for package, targets in edges.items()}) == []


def test_circles_are_found():
    assert circle({"a": {"b"}, "b": {"a"}})


@pytest.mark.parametrize("module", [module for module in MODULES if level_of(module) < LOWEST_WITH_TORCH])
def test_no_torch_below_the_models(module):
    heavy = {"torch", "safetensors", "kornia", "matplotlib", "rich", "torchvision"}
    assert not imports_of(module)[1] & (heavy - OPTIONAL.get(module, set()))


def test_no_module_imports_what_breaks_beside_torch():
    # torchvision of another index raises RuntimeError beside a CPU build of torch, and takes the others down with it.
    for module in MODULES:
        assert not imports_of(module)[1] & {"torchvision", "torchmetrics", "lightning", "pytorch_lightning", "timm"}


def test_base_of_the_package_needs_only_its_dependencies():
    import sys

    for module in MODULES:
        if level_of(module) < LEVEL_OF["data"]:
            foreign = imports_of(module)[1] - set(sys.stdlib_module_names)
            assert foreign <= {"numpy", "PIL"} | OPTIONAL.get(module, set()), f"{module} imports {sorted(foreign)}"


def test_verbs_of_the_command_line_import_public_names_only():
    """What a command needs, a Python program can have as well: names of the package, not private ones."""
    for module in MODULES:
        if layer_of(module) == "cli":
            tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
            names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names]
            assert [name for name in names if name.startswith("_") and name != "__version__"] == [], module
