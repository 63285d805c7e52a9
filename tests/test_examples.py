"""Every example runs as its first lines say."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import squeezenet
from exported import need, need_browser
from image_files import encode, photo
from networks import random_network, tiny_spec
from squeezenet.exports.browser import open_browser

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def run_example(name, *arguments):
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def photo_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "photo.png"
    path.write_bytes(encode(photo(), "PNG"))
    return path


def test_predict_prints_a_line_for_each_photo(photo_file, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"nothing")
    lines = run_example("predict.py", photo_file, broken).splitlines()
    (best, *_) = squeezenet.Classifier("imagenette").predict([photo_file])[0]
    assert lines[0].startswith(f"{photo_file} {best.label} {best.probability:.0%}, ")
    assert lines[1].startswith(f"{broken}: ")


def test_second_reader_ranks_a_photo_alike(photo_file, tmp_path):
    small = tmp_path / "small.sqz"  # a network of a million weights takes it ten seconds; this one none
    squeezenet.write_sqz(small, squeezenet.SqzFile(network=random_network(tiny_spec())))
    printed = run_example("read_sqz.py", small, photo_file)
    (answer,) = squeezenet.Classifier(small).predict([photo_file], top=5)
    for line, expected in zip(printed.splitlines(), answer, strict=True):
        assert line.split()[:2] == [f"{expected.probability:.2%}", expected.label]


def test_service_answers_with_json_and_refuses_with_a_reason(photo_file):
    spec = importlib.util.spec_from_file_location("service", EXAMPLES / "service.py")
    service = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(service)
    client = service.app.test_client()
    answer = client.post("/", data=photo_file.read_bytes())
    (best, *_) = squeezenet.Classifier("imagenette").predict([photo_file])[0]
    assert answer.json["predictions"][0] == {"label": best.label, "probability": best.probability}
    refused = client.post("/", data=b"no photo")
    assert refused.status_code == 400
    assert "image" in refused.json["error"]


def test_fine_tuning_loop_writes_a_file_with_the_folder_names(tmp_path):
    for name, shade in (("dark", 40), ("light", 210)):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for index in range(6):
            Image.new("RGB", (64, 64), (shade, shade + 4 * index, shade)).save(folder / f"{index}.png")
    out = tmp_path / "shades.sqz"
    printed = run_example("pytorch_finetune.py", tmp_path / "photos", out, "--scratch")
    assert printed.splitlines()[-1] == f"{out}: {out.stat().st_size:,} bytes"
    assert squeezenet.Classifier(out).class_names == ("dark", "light")


def first_answers(photo, model="imagenette"):
    (answer,) = squeezenet.Classifier(model).predict([photo], top=3)
    return [f"{100 * best.probability:5.1f} %  {best.label}" for best in answer]


def test_program_in_c_prints_what_python_predicts(tmp_path):
    need("make", "gcc")
    folder = shutil.copytree(EXAMPLES / "desktop-c", tmp_path / "desktop-c")
    options = [f"PYTHON={sys.executable}", f"PHOTO={EXAMPLES / 'photo.jpg'}", "CC=gcc", "CFLAGS=-std=c99 -O1 -Werror"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = ["make", "-s", "run", *options]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-3:] == first_answers(EXAMPLES / "photo.jpg")
    (folder / "small.ppm").write_bytes(b"P6 1 1 255\n\0\0\0")
    refused = subprocess.run(["./classify", "small.ppm"], cwd=folder, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1
    assert refused.stderr == "small.ppm: expected a PPM (P6) of 128 x 128 pixels of 8 bits, got 1 x 1\n"


def test_node_script_prints_what_python_predicts(tmp_path):
    need("node")
    squeezenet.export("imagenette", tmp_path / "imagenette.js")
    Image.open(EXAMPLES / "photo.jpg").convert("RGB").save(tmp_path / "photo.ppm")
    command = ["node", EXAMPLES / "node/classify.mjs", "imagenette.js", "photo.ppm"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == first_answers(tmp_path / "photo.ppm")


def test_page_of_one_s_own_names_a_chosen_photo(tmp_path):
    need_browser()
    shutil.copy(EXAMPLES / "html/index.html", tmp_path)
    squeezenet.export("imagenette", tmp_path / "imagenette.js")
    photo = tmp_path / "photo.png"  # JPEG decoders may differ by a step
    Image.open(EXAMPLES / "photo.jpg").save(photo)
    with open_browser() as browser:
        page = browser.new_page()
        page.set_default_timeout(30_000)
        page.goto((tmp_path / "index.html").as_uri())
        page.set_input_files("input", photo)
        page.wait_for_selector("li")
        shown = page.locator("li").all_inner_texts()
    (answer,) = squeezenet.Classifier("imagenette").predict([photo], top=3)
    assert shown == [f"{best.label}: {100 * best.probability:.1f} %" for best in answer]
