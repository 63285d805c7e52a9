"""The modules of the package and what their texts import."""

import ast
from pathlib import Path

import squeezenet

ROOT = Path(squeezenet.__file__).parent


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"}


def imports_of(module):
    """Names of the modules that a module imports, anywhere in its text: ours without the package's name."""
    path = MODULES[module]
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {("", alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if not node.level:
                found.add(("", node.module))
                continue
            base = package[: len(package) - node.level + 1]
            target = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{target}.{alias.name}".lstrip(".")
                found.add(("squeezenet", inner if inner in MODULES else target))
    ours = {name for origin, name in found if origin and name}
    foreign = {name for origin, name in found if not origin}
    ours |= {name.removeprefix("squeezenet.") for name in foreign if name.startswith("squeezenet.")}
    return ours, {name.split(".")[0] for name in foreign} - {"squeezenet"}
