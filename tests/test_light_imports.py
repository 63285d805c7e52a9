"""What must start at once, in a fresh interpreter: no torch, and for help no NumPy either."""

import json
import os
import subprocess
import sys

import pytest

from image_files import encode, photo
from networks import random_network, tiny_spec
from squeezenet.fileformat import SqzFile, write_sqz

HEAVY = {
    "torch",
    "safetensors",
    "sklearn",
    "matplotlib",
    "rich",
    "kornia",
    "onnx",
    "onnxruntime",
    "ray",
    "pyarrow",
    "scipy",
    "optuna",
    "jinja2",
}


def modules_after(code, *arguments):
    """Names of the top-level modules loaded once some code has run in a fresh interpreter."""
    ending = (
        "import atexit, sys, json\natexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", ending + code, *arguments], capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in json.loads(result.stderr.splitlines()[-1])}, result.stdout


def run_cli(*arguments):
    return modules_after("from squeezenet.cli import main; main()", *arguments)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    write_sqz(folder / "tiny.sqz", SqzFile(network=random_network(tiny_spec())))
    (folder / "photo.png").write_bytes(encode(photo()))
    return folder


def test_package_imports_nothing_of_weight():
    loaded, _ = modules_after("import squeezenet; squeezenet.__version__")
    assert not loaded & {*HEAVY, "numpy", "PIL", "click"}


def test_help_needs_neither_numpy_nor_pillow():
    loaded, output = run_cli("--help")
    assert output.startswith("Usage: squeezenet [OPTIONS] COMMAND")
    assert not loaded & {*HEAVY, "numpy", "PIL"}


@pytest.mark.parametrize(
    "verb", ["predict", "evaluate", "info", "train", "compress", "explore", "import", "export", "verify"]
)
def test_help_of_every_verb_needs_no_torch(verb):
    loaded, output = run_cli(verb, "--help")
    assert output.startswith(f"Usage: squeezenet {verb}")
    assert not loaded & {*HEAVY, "numpy", "PIL"}


def test_info_on_a_name_needs_no_numpy():
    loaded, output = run_cli("info", "squeezenet1_0")
    assert "1,248,424" in output
    assert not loaded & {*HEAVY, "numpy", "PIL"}


@pytest.mark.parametrize("layout", [(), ("--json",), ("--csv",)])
def test_predict_on_a_sqz_file_needs_no_torch(model, layout):
    loaded, output = run_cli("predict", str(model / "tiny.sqz"), str(model / "photo.png"), *layout)
    assert "photo.png" in output
    assert not loaded & HEAVY


def test_info_on_a_sqz_file_needs_no_torch(model):
    loaded, output = run_cli("info", str(model / "tiny.sqz"))
    assert "smaller than float32" in output
    assert not loaded & HEAVY


def test_classifier_needs_no_torch():
    loaded, _ = modules_after(
        "from squeezenet import Classifier, read_sqz, Preprocessing, named_spec, load_image, Labels"
    )
    assert not loaded & HEAVY


def test_python_m_squeezenet_is_the_command():
    result = subprocess.run(
        [sys.executable, "-m", "squeezenet", "--version"], capture_output=True, text=True, check=True
    )
    assert result.stdout == "squeezenet, version 0.1.0\n"


def test_help_takes_at_most_0_3_seconds():
    # Processor time, the best of a few runs: what is asked for, without what else the machine is doing.
    def seconds():
        process = subprocess.Popen([sys.executable, "-m", "squeezenet", "--help"], stdout=subprocess.DEVNULL)
        usage = os.wait4(process.pid, 0)[2]
        process.returncode = 0
        return usage.ru_utime + usage.ru_stime

    assert min(seconds() for _ in range(5)) <= 0.3


def test_check_multiplies_on_one_thread(model):
    """Its products are small and many: on two busy cores BLAS's threads made `check digits` ten times slower."""
    code = (
        "import atexit, os; os.environ.pop('OPENBLAS_NUM_THREADS', None)\n"
        "atexit.register(lambda: print(os.environ.get('OPENBLAS_NUM_THREADS')))\n"
        "from squeezenet.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "check", str(model / "photo.png")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1:] == ["1"], done.stderr
