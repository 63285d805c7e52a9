"""Broken, foreign and hostile files: one named error each, no code run, no file touched, little memory and time."""

import json
import subprocess
import sys

import pytest

from commands import run
from hostile_files import write_all

MAX_MEMORY_BYTES = 700 << 20
MAX_SECONDS = 5

# Reads every file in one process without torch, in bounded address space, and reports what came of it.
READER = """
import json, resource, sys, time
import h5py, numpy, tflite
from google.protobuf import descriptor_pool
from squeezenet.errors import WeightsError
from squeezenet.imports import read_foreign

def watch(event, arguments):
    if event in ("os.system", "subprocess.Popen", "os.exec", "os.fork", "socket.connect") or (
        event == "open" and str(arguments[0]).rpartition("/")[2] in ("passwd", "ran", "secret.bin", "other.h5")
    ):
        print("RAN", event, arguments, flush=True)

sys.addaudithook(watch)
limit = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with open("/proc/self/statm") as stream:
    size = int(stream.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + ALLOWED,) * 2)
for path in sys.argv[1:]:
    start = time.process_time()
    try:
        read_foreign(path)
        result = "read"
    except WeightsError as error:
        result = str(error)
    print(json.dumps([path, result, time.process_time() - start]))
""".replace("ALLOWED", str(MAX_MEMORY_BYTES))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    paths = write_all(folder)
    reading = subprocess.run([sys.executable, "-c", READER, *paths], capture_output=True, text=True, cwd=folder)
    assert reading.returncode == 0, reading.stderr[-3000:]
    assert "RAN" not in reading.stdout
    assert not (folder / "ran").exists()
    found = {path: (result, seconds) for path, result, seconds in map(json.loads, reading.stdout.splitlines())}
    assert list(found) == [str(path) for path in paths]
    return found


def test_there_are_many_of_each_format(results):
    assert len(results) >= 60
    for suffix in (".pth", ".onnx", ".h5", ".keras", ".caffemodel", ".param", ".tflite"):
        assert sum(path.endswith(suffix) for path in results) >= 2


def test_each_is_one_line_that_names_the_file(results):
    wrong = {path: result for path, (result, _) in results.items() if not result.startswith(path.removesuffix("param"))}
    assert wrong == {}
    assert [result for result, _ in results.values() if "\n" in result or len(result) > 600] == []


def test_none_takes_long(results):
    assert {path: seconds for path, (_, seconds) in results.items() if seconds > MAX_SECONDS} == {}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("system.pth", "expected the tensors of a SqueezeNet, got posix.system: save `model.state_dict()` alone"),
        ("eval.pth", "got __builtin__.eval under `state_dict`: save"),
        ("bomb.pth", "expected at most 150994944 bytes unpacked, got 158334980"),
        ("claim.pth", "conv1: expected 4398046511104 bytes in archive/data/0, got fewer"),
        ("broadcast.pth", "this is not a SqueezeNet: "),
        (
            "resnet.ckpt",
            "expected one first convolution of (96, 3, 7, 7) or (64, 3, 3, 3), got none among 20 convolutions",
        ),
        ("circle.onnx", "this is not a SqueezeNet: "),
        ("external.onnx", "w: expected weights in the file, got a reference to another"),
        ("constant.onnx", "w: expected weights, got the shape [1048576, 1048576]"),
        ("vgg.onnx", "after the first convolution expected a Fire module"),
        ("lstm.onnx", "expected conv at the first convolution, got LSTM"),
        ("claim.h5", "expected at most 16777216 weights, got 9895604649984"),
        ("external.h5", "expected plain arrays, got /conv1/w with its values elsewhere"),
        ("virtual.h5", "expected plain arrays, got /conv1/w with its values elsewhere"),
        ("lambda.keras", "got Lambda 'l'"),
        ("wide.param", "expected 2147483647 weights at 4, got fewer"),
        ("large.onnx", "expected at most 150994944 bytes, got 3221225472"),
    ],
)
def test_messages_say_what_is_wrong(results, name, message):
    path = next(path for path in results if path.endswith(f"/{name}"))
    assert message in results[path][0]


def test_command_refuses_them_in_one_line(results, tmp_path):
    for name in ("system.pth", "circle.onnx", "claim.h5", "random.tflite"):
        path = next(path for path in results if path.endswith(f"/{name}"))
        result = run("import", path, "-o", tmp_path / "out.safetensors")
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
        assert not (tmp_path / "out.safetensors").exists()
