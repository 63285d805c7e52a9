"""The script for pages of one's own and for Node: it defines one variable, whose answers are Python's bits."""

import base64
import json
import subprocess

import numpy as np
import pytest
from PIL import Image

from exported import bytes_of, contents_of, imagenet_sized, need, need_browser
from image_files import encode
from networks import random_network, tiny_spec, unknown_rule
from squeezenet import Preprocessing, SqzFile, export, predict
from squeezenet.engine import ReferenceEngine
from squeezenet.errors import DataError
from squeezenet.exports import build_script
from squeezenet.exports.browser import open_browser
from squeezenet.fileformat import encode_sqz

RULE_SPEC = tiny_spec()
CONTENTS = SqzFile(
    network=random_network(RULE_SPEC, seed=4), unknown=unknown_rule(RULE_SPEC, 3, threshold=36_450),
    preprocessing=Preprocessing(crop_size=16, resize_size=20), facts={"temperature": 0.75},
)  # fmt: skip
NODE = """
import %s;
const pixels = JSON.parse(process.argv[2]);
const { logits, top, unknown } = await network.classify({ ...pixels, data: new Uint8Array(pixels.data) });
const { size, classes } = await network.ready;
console.log(JSON.stringify({ logits: [...logits], top, unknown, size, classes: classes.slice(0, 3) }));
"""
ALL_SOURCES = """async (dataUrl) => {
  const image = new Image();
  image.src = dataUrl;
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.width, image.height];
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const blob = await (await fetch(dataUrl)).blob();
  const bitmap = await createImageBitmap(image);
  const sources = [blob, image, canvas, bitmap, bitmap, context.getImageData(0, 0, image.width, image.height)];
  const answers = await Promise.all(sources.map((source) => network.classify(source)));
  return answers.map(({ logits }) => [...logits]);
}"""


def noise(width=40, height=30):
    return np.random.default_rng(3).integers(0, 256, (height, width, 3)).astype(np.uint8)


def expected_logits(pixels):
    seen = CONTENTS.preprocessing(Image.fromarray(pixels))
    return ReferenceEngine(CONTENTS.network).logits(seen[None])[0]


def run_node(folder, script, pixels):
    need("node")
    (folder / "network.js").write_bytes(script)
    (folder / "main.mjs").write_text(NODE % json.dumps("./network.js"))
    height, width, _ = pixels.shape
    rgba = np.dstack([pixels, np.full((height, width), 255, np.uint8)])
    photo = json.dumps({"width": width, "height": height, "data": rgba.ravel().tolist()})
    done = subprocess.run(["node", "main.mjs", photo], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_node_gives_python_s_logits_probabilities_and_verdict(tmp_path):
    answer = run_node(tmp_path, build_script(encode_sqz(CONTENTS), "network"), noise())
    assert answer["logits"] == expected_logits(noise()).tolist()
    (tmp_path / "photo.png").write_bytes(encode(Image.fromarray(noise())))
    (expected,) = predict(CONTENTS, [tmp_path / "photo.png"], top=1)
    (best,) = expected.predictions
    assert answer["top"][0]["label"] == best.label
    assert answer["top"][0]["probability"] == pytest.approx(best.probability, abs=1e-9)
    assert answer["unknown"] == expected.is_unknown
    assert answer["size"] == 16


def test_names_that_a_file_only_refers_to_are_in_the_script(tmp_path):
    data, contents = imagenet_sized()
    answer = run_node(tmp_path, build_script(data, "network", contents), noise())
    assert answer["classes"] == list(contents.class_names[:3])


def test_wrong_number_of_bytes_is_refused(tmp_path):
    need("node")
    (tmp_path / "network.js").write_bytes(build_script(bytes_of("plain"), "network"))
    (tmp_path / "main.cjs").write_text(
        'require("./network.js");'
        "network.classify({ width: 2, height: 2, data: new Uint8Array(12) })"
        ".catch(({ message }) => console.log(message));"
    )
    done = subprocess.run(["node", "main.cjs"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout == "expected 2 x 2 RGBA pixels, got 12 bytes\n"


def test_every_kind_of_image_in_a_browser_gives_python_s_logits(tmp_path):
    need_browser()
    (tmp_path / "network.js").write_bytes(build_script(encode_sqz(CONTENTS), "network"))
    (tmp_path / "index.html").write_text('<!doctype html><p id="network"></p><script src="network.js"></script>')
    url = f"data:image/png;base64,{base64.b64encode(encode(Image.fromarray(noise()))).decode()}"
    with open_browser() as browser:
        page = browser.new_page()
        page.set_default_timeout(30_000)
        page.goto((tmp_path / "index.html").as_uri())
        answers = page.evaluate(ALL_SOURCES, url)
        message = page.evaluate("network.classify(new Blob(['nothing'])).catch((error) => error.message)")
    assert answers == [expected_logits(noise()).tolist()] * 6
    assert message == "expected an image that this browser can read"


def test_variable_is_named_after_the_file_or_as_asked(tmp_path):
    for name, options in (("two_words", {}), ("mine", {"name": "mine"})):
        script = tmp_path / "two words.js"
        assert export(contents_of("plain"), script, **options).to == "js"
        assert f'"name": "{name}"' in script.read_text(encoding="ascii")
    with pytest.raises(DataError, match="expected letters, digits and _ for `name`, got 'a-b'"):
        export(contents_of("plain"), tmp_path / "x.js", name="a-b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["two words.js"]
