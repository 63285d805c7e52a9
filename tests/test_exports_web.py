"""The exported page as a file, and its engine in Node; test_exports_page.py opens it in a browser."""

import base64
import hashlib
import json
import re
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from exported import bytes_of, imagenet_sized, need
from networks import random_network, tiny_spec
from squeezenet import Labels, Preprocessing, SqzFile, export
from squeezenet.engine import ReferenceEngine
from squeezenet.errors import DataError, ModelNotFoundError
from squeezenet.exports import build_page
from squeezenet.exports.browser import find_node
from squeezenet.exports.web_page import PARTS, pack, unpack
from squeezenet.fileformat import encode_sqz

ROOT = Path(__file__).parents[1]


def element(page: str, name: str) -> str:
    return re.search(rf'<script type="[^"]+" id="{name}"[^>]*>(.*?)</script>', page, re.DOTALL)[1]


def program(page: str, name: str = "page") -> str:
    """The text of a script that the page holds deflated."""
    size = int(re.search(rf'id="{name}" data-bytes="(\d+)"', page)[1])
    return zlib.decompress(unpack(element(page, name), size)).decode()


@given(st.binary(max_size=300))
def test_packed_bytes_come_back(data):
    assert unpack(pack(data), len(data)) == data


def test_packed_text_has_nothing_that_html_changes_and_is_an_eighth_more():
    data = np.random.default_rng(0).integers(0, 256, 70_000).astype(np.uint8).tobytes() + bytes(1000)
    text = pack(data)
    assert not set(text) & set("\0\n\r<")
    assert len(text.encode()) <= 81_143 + 1


def test_golden_packing():
    # The septets are 0, 3 and 32; the first, NUL, is joined with the second.
    assert pack(b"\x00\x0d") == chr(1024 + 3) + chr(32)


def test_foreign_text_is_refused_by_unpack():
    with pytest.raises(DataError, match="got the character 'é'"):
        unpack("é", 1)
    with pytest.raises(DataError, match="expected 2 bytes as text, got 0"):
        unpack("a", 2)


def test_page_holds_the_file_unchanged_and_is_the_same_every_time():
    data = bytes_of("plain")
    page, _ = build_page(data)
    text = page.decode()
    assert unpack(element(text, "model"), len(data)) == data
    assert build_page(data)[0] == page


def test_page_is_called_what_its_file_is_called(tmp_path):
    export("cifar10", tmp_path / 'Möwen & "Enten".html')
    page = (tmp_path / 'Möwen & "Enten".html').read_text(encoding="utf-8")
    assert json.loads(element(page, "facts"))["name"] == 'Möwen & "Enten"'


def expected_check(contents):
    """Of the same photo that worker.js makes up for its test."""
    size = contents.network.spec.input_size
    pixels = np.array([(i * 2654435761 & 0xFFFFFFFF) >> 24 for i in range(size * size * 3)], np.uint8)
    return zlib.adler32(ReferenceEngine(contents.network).logits(pixels.reshape(1, size, size, 3)).tobytes())


def test_sizes_add_up_and_the_runtime_is_small():
    data, contents = imagenet_sized()
    page, sizes = build_page(data, contents)
    assert sizes.page_bytes == len(page)
    assert sizes.runtime_bytes <= 75_000
    assert sizes.model_bytes <= len(data) * 8 / 7 + 100
    assert json.loads(element(page.decode(), "facts")) == {
        "name": "squeezenet1_1",
        "file_bytes": len(data),
        "fp32_bytes": 4_941_984,
        "check": expected_check(contents),
        "page_bytes": len(page),
    }


def test_policy_admits_the_page_s_own_scripts_and_styles_alone():
    page = build_page(bytes_of("plain"))[0].decode()
    policy = re.search('http-equiv="Content-Security-Policy" content="([^"]+)"', page)[1]
    scripts = [re.search("<script>(.*?)</script>", page, re.DOTALL)[1], program(page)]
    styles = [re.search("<style>(.*?)</style>", page, re.DOTALL)[1]]
    styles.append(json.loads(re.search('const lateStyle = (".*");', scripts[1])[1]))
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (*scripts, *styles)]
    directives = dict(part.split(" ", 1) for part in policy.split("; "))
    assert directives["default-src"] == "'none'"
    assert directives["connect-src"] == "'none'"
    assert directives["script-src"] == f"'sha256-{digests[0]}' 'sha256-{digests[1]}' 'wasm-unsafe-eval'"
    assert directives["style-src"] == f"'sha256-{digests[2]}' 'sha256-{digests[3]}'"
    assert "unsafe-inline" not in policy


def test_page_names_no_address():
    page = build_page(bytes_of("plain"))[0].decode()
    assert set(re.findall(r"https?://[^\s'\"]+", page)) == {"http://www.w3.org/2000/svg"}  # a name, never fetched
    assert not re.findall(r"https?://", program(page) + program(page, "worker"))
    assert not re.findall(
        r"\b(?:fetch|XMLHttpRequest|WebSocket|EventSource|sendBeacon|importScripts)\b",
        page + program(page) + program(page, "worker"),
    )


@pytest.mark.parametrize("name", ["</script><script>alert(1)</script>", "@blocks@", "<!--", "????????", "0"])
def test_names_of_files_cannot_leave_their_place(name):
    contents = SqzFile(
        network=random_network(tiny_spec(name=name)), labels=Labels(tuple(f"{name}{i}" for i in range(5)))
    )
    page = build_page(encode_sqz(contents))[0].decode()
    facts = json.loads(element(page, "facts"))
    assert (facts["name"], facts["page_bytes"]) == (name, len(page.encode()))
    assert page.count("<script") == 7  # a script, facts, the program, its worker, two engines, model


def test_other_files_than_sqz_are_refused(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"floats")
    with pytest.raises(ModelNotFoundError, match=r"expected a \.sqz file, got the float network '.*x\.safetensors'"):
        export(tmp_path / "x.safetensors", tmp_path / "page.html")
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


# --- the engine ---


def test_rebuilding_the_engine_gives_the_same_bytes(tmp_path):
    need("clang-19", "wasm-ld-19")
    recipe = json.loads((PARTS / "engine.json").read_text())
    version = subprocess.run(["clang-19", "--version"], capture_output=True, text=True, check=True).stdout
    if recipe["clang"] not in version:
        pytest.skip(f"needs clang {recipe['clang']}")
    names = ("engine.wasm", "relaxed.wasm")
    subprocess.run([ROOT / "csrc/web/build.sh", *(tmp_path / name for name in names)], check=True)
    expected = [(PARTS / name).read_bytes() for name in names]
    assert [(tmp_path / name).read_bytes() for name in names] == expected, "csrc has changed: run `make web`"
    assert hashlib.sha256(b"".join(expected)).hexdigest() == recipe["sha256"]


def test_second_module_has_no_memory_of_its_own():
    """None of its sections is memory, start, elements or data: it cannot write over the engine's."""
    data, at, sections = (PARTS / "relaxed.wasm").read_bytes(), 8, []
    while at < len(data):
        sections.append(data[at])
        size = shift = 0
        while True:
            at += 1
            size |= (data[at] & 127) << shift
            shift += 7
            if data[at] < 128:
                break
        at += 1 + size
    assert set(sections) <= {1, 2, 3, 4, 6, 7, 10}


def run_node(folder, data, preprocessing, photos, kernels="plain"):
    """Logits of RGBA photos from the page's engine, shape (N, classes)."""
    need("node")
    node = find_node(relaxed=kernels == "relaxed")
    (folder / "model.sqz").write_bytes(data)
    settings = (
        preprocessing.resize_size,
        int(preprocessing.resize_mode == "squash"),
        int(preprocessing.resample == "bicubic"),
    )
    command = [*node, PARTS / "run_node.mjs", kernels, folder / "model.sqz", *map(str, settings)]
    rows = b"".join(struct.pack("<II", *photo.size) + photo.tobytes() for photo in photos)
    output = subprocess.run(command, input=rows, stdout=subprocess.PIPE, check=True).stdout
    return np.frombuffer(output).reshape(len(photos), -1)


@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
@pytest.mark.parametrize("mode", ["short_side", "squash"])
def test_engine_resizes_crops_and_flattens_as_python_does(tmp_path, mode, resample):
    rng = np.random.default_rng(7)
    sizes = [(48, 32), (32, 48), (16, 16), (20, 20), (7, 5), (5, 7), (101, 67), (23, 90), (700, 900), (1, 1), (3, 64)]
    noise = [rng.integers(0, 256, (height, width, 4)).astype(np.uint8) for width, height in sizes]
    for pixels in noise[::2]:
        pixels[..., 3] = 255
    photos = [Image.fromarray(pixels) for pixels in noise]
    preprocessing = Preprocessing(crop_size=16, resize_size=21, resize_mode=mode, resample=resample)
    contents = SqzFile(network=random_network(tiny_spec(), seed=4), preprocessing=preprocessing)
    expected = ReferenceEngine(contents.network).logits(np.stack([preprocessing(photo) for photo in photos]))
    assert np.array_equal(run_node(tmp_path, encode_sqz(contents), preprocessing, photos), expected)


@pytest.mark.parametrize("kernels", ["plain", "relaxed"])
def test_engine_in_node_classifies_an_imagenet_network(tmp_path, kernels):
    data, contents = imagenet_sized()
    rng = np.random.default_rng(8)
    photos = [Image.fromarray(rng.integers(0, 256, (300, 400, 3)).astype(np.uint8)).convert("RGBA") for _ in range(2)]
    pixels = np.stack([contents.preprocessing(photo) for photo in photos])
    expected = ReferenceEngine(contents.network).logits(pixels)
    assert np.array_equal(run_node(tmp_path, data, contents.preprocessing, photos, kernels), expected)
