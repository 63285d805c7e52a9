"""The C sources: which file calls which, and names that let all be pasted into one file."""

import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from squeezenet.exports.c_engine import ENGINE_FILES

_FILES = {file: None for files in ENGINE_FILES.values() for file in files}

CSRC = Path(__file__).parents[1] / "csrc"
SKIPPED = re.compile(r"/\*.*?\*/|__attribute__\(\((?:[^()]|\([^()]*\))*\)\)\s*|WEB_EXPORT\(\w+\) ", re.DOTALL)
FUNCTION = re.compile(r"^(static |SQZ_INLINE )?[\w* ]*?\b(\w+)\([^;{]*\)\s*\{", re.MULTILINE)
TABLE = re.compile(r"^const sqz_kernels (\w+) = \{", re.MULTILINE)


def sources() -> dict[str, str]:
    return {path.name: SKIPPED.sub("", path.read_text(encoding="utf-8")) for path in sorted(CSRC.rglob("*.c"))}


def calls() -> dict[str, set[str]]:
    """Of each file, the files whose functions or tables it names."""
    texts = sources()
    homes: dict[str, set[str]] = {}
    for file, text in texts.items():
        names = [name for start, name in FUNCTION.findall(text) if not start] + TABLE.findall(text)
        for name in filter(re.compile("(sqz|web)_").match, names):
            homes.setdefault(name, set()).add(file)
    assert [name for name, files in homes.items() if len(files) > 1] == []
    return {
        file: {home for word in set(re.findall(r"\w+", text)) for home in homes.get(word, ())} - {file}
        for file, text in texts.items()
    }


def test_no_two_files_call_each_other_by_any_way_round():
    graph = calls()
    assert graph["sqz_model.c"] == {"kernels.c", "sqz_decode.c", "sqz_pack.c", "sqz_plan.c"}
    assert "kernels_avx2.c" in graph["kernels.c"]
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the files


@pytest.mark.parametrize("form", ENGINE_FILES)
def test_exported_files_stand_below_those_that_call_them(form):
    graph = calls()
    order = [file for file in ENGINE_FILES[form] if file.endswith(".c")]
    for file in order:
        assert {other for other in graph[file] & set(order) if order.index(other) > order.index(file)} == set()


def test_static_functions_of_exported_files_carry_the_files_prefix():
    texts = sources()
    static = {
        file: [name for start, name in FUNCTION.findall(texts[file]) if start] for file in _FILES if file.endswith(".c")
    }
    assert {"plan_fire", "plan_conv"} <= set(static["sqz_plan.c"])
    for file, names in static.items():
        prefix = re.sub(r"^(sqz_|kernels_)|\.c$", "", file) + "_"
        assert [name for name in names if not name.startswith(prefix)] == []
