import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_doctests_are_collected():
    """A canary: examples in docstrings are only worth something while they run."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "src/squeezenet/labels.py"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert "src/squeezenet/labels.py::squeezenet.labels.imagenet_labels" in result.stdout
