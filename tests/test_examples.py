"""Every example runs as its first lines say."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import squeezenet
from image_files import encode, photo
from networks import random_network, tiny_spec

EXAMPLES = Path(__file__).parents[1] / "examples"


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
