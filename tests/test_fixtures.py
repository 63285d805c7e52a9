"""Files of every format version decode permanently, to the same integers and the same predictions."""

import hashlib
import json

import pytest

from fixture_files import FOLDER, describe, encoded, fixtures, formula_pixels
from squeezenet.engine import ReferenceEngine
from squeezenet.fileformat import VERSION, decode_sqz

# Literal, so that a lost file is a failed test and not a test less.
NAMES = ["v1/classes", "v1/everything", "v1/vector", "v2/parts"]


def test_no_fixture_is_missing_or_unknown():
    for suffix in (".sqz", ".json"):
        assert sorted(str(path.relative_to(FOLDER).with_suffix("")) for path in FOLDER.rglob(f"*{suffix}")) == NAMES


def test_every_version_has_its_fixtures():
    assert sorted(fixtures()) == NAMES
    assert {name.split("/")[0] for name in NAMES} == {f"v{version}" for version in range(1, VERSION + 1)}


@pytest.mark.parametrize("name", NAMES)
def test_fixture_decodes_and_predicts_as_ever(name):
    expected = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    contents = decode_sqz((FOLDER / f"{name}.sqz").read_bytes())
    assert json.loads(json.dumps(describe(contents))) == expected


@pytest.mark.parametrize("name", NAMES)
def test_expectations_are_not_empty(name):
    expected = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    assert len(expected["logits"]) == expected["spec"]["num_classes"]
    assert len(set(expected["logits"])) > expected["spec"]["num_classes"] / 3
    assert len(set(expected["convs_sha256"].values())) == len(expected["convs_sha256"])


def test_fixture_written_again_reads_the_same():
    for name, contents in fixtures().items():
        again = describe(decode_sqz(encoded(name, contents)))
        expected = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
        assert json.loads(json.dumps(again)) == expected


def test_hash_of_a_fixture_is_its_last_32_bytes():
    for name in NAMES:
        data = (FOLDER / f"{name}.sqz").read_bytes()
        assert data[-36:-4] == hashlib.sha256(data[:-44]).digest()


def test_formula_pixels_are_the_page_s():
    pixels = formula_pixels(8)
    assert pixels.shape == (1, 8, 8, 3)
    assert pixels[0, 3, 5].tolist() == [(37 * 3 + 101 * 5 + 59 * i + 15) % 256 for i in range(3)]


def test_logits_of_a_fixture_do_not_depend_on_the_batch():
    contents = decode_sqz((FOLDER / "v1" / "everything.sqz").read_bytes())
    pixels = formula_pixels(21).repeat(3, axis=0)
    logits = ReferenceEngine(contents.network).logits(pixels)
    assert (logits == logits[0]).all()
