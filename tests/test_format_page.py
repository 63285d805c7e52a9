"""docs/format.md against the code: the test vector, the tables of fields, limits and errors."""

import re
from pathlib import Path

import pytest

from fixture_files import FOLDER, fixtures, formula_pixels
from read_sqz import read_sqz, run
from squeezenet import container, errors, fileformat, preprocess, spec
from squeezenet.codec import weights
from squeezenet.engine import ReferenceEngine
from squeezenet.fileformat import decode_sqz, encode_sqz

PAGE = (Path(__file__).parents[1] / "docs" / "format.md").read_text(encoding="utf-8")
VECTOR = bytes.fromhex("".join(re.findall(r"^    ([0-9a-f]{2,64})$", PAGE, re.MULTILINE)))
LOGITS = [float(text) for text in re.findall(r"^    (-?\d+\.\d+)$", PAGE, re.MULTILINE)]


def test_vector_of_the_page_is_the_fixture():
    assert (FOLDER / "v1" / "vector.sqz").read_bytes() == VECTOR
    assert f"A whole file, {len(VECTOR)} bytes" in PAGE


def test_vector_predicts_the_logits_of_the_page():
    network = decode_sqz(VECTOR).network
    assert ReferenceEngine(network).logits(formula_pixels(8))[0].tolist() == LOGITS
    assert len(LOGITS) == 3


def test_vector_has_the_features_of_the_page():
    features = ReferenceEngine(decode_sqz(VECTOR).network).features(formula_pixels(8))[0]
    assert f"Its features are `{' '.join(map(str, features))}`." in PAGE


def test_second_reader_predicts_the_logits_of_the_page():
    assert run(read_sqz(VECTOR), formula_pixels(8)[0])[0] == LOGITS


def test_network_of_the_vector_encodes_to_its_bytes():
    # A better encoder may change this one day, deliberately: then the page keeps its vector and this test goes.
    assert encode_sqz(fixtures()["v1/vector"]) == VECTOR


def test_signature_and_version_are_those_of_the_page():
    assert container.SIGNATURE.hex(" ").upper() in PAGE
    assert f"The newest version is {fileformat.VERSION};" in PAGE
    assert f"networks of 2^{weights._MIN_WEIGHTS_OF_TWO_PARTS.bit_length() - 1} weights or more" in PAGE


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("| input size | 1 to 1024 |", spec.MAX_INPUT_SIZE == 1024),
        ("| classes | 1 to 65,535 |", spec.MAX_CLASSES == 65_535),
        ("| channels of any convolution, and of a Fire's concatenation | 1 to 4096 |", spec.MAX_CHANNELS == 4096),
        ("| Fire modules | 1 to 64 |", spec.MAX_FIRES == 64),
        ("| weights and biases | at most 2^24 |", spec.MAX_WEIGHTS == 2**24),
        ("| elements of all tensors, for one image | at most 2^27 |", spec.MAX_ACTIVATION_ELEMENTS == 2**27),
        ("| multiply-accumulates, for one image | at most 2^37 |", spec.MAX_MACS == 2**37),
        ("| chunks; META nesting; name | 64; 32; 64 bytes |",
         (container._MAX_CHUNKS, container._MAX_DEPTH, fileformat._MAX_NAME_BYTES) == (64, 32, 64)),
        ("are 64 MiB per file, 4 MiB of inflated META, and 2^24 weights",
         fileformat.Limits() == fileformat.Limits(file_bytes=64 << 20, meta_bytes=4 << 20, weights=2**24)),
        ("100,000,000 pixels", preprocess.MAX_IMAGE_PIXELS == 100_000_000),
    ],
)  # fmt: skip
def test_limits_are_those_of_the_page(text, value):
    assert text in " ".join(PAGE.split())
    assert value


def test_every_format_error_is_on_the_page():
    names = {name for name in errors.__all__ if issubclass(getattr(errors, name), errors.FormatError)}
    table = PAGE.split("## Errors")[1].split("## The graph")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == names - {"FormatError"}


def test_contents_lead_to_headings():
    links = re.findall(r"\]\(#([\w-]+)\)", PAGE)
    headings = {heading.lower().replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)}
    assert {"arch", "wght", "meta", "limits", "test-vector"} <= set(links) <= headings
