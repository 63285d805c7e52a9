"""Settings that have to stand before torch is loaded, and the order of the test files."""

import os

# Waiting threads that spin make tests many times slower when anything else runs on the same cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:  # one process for each core runs already
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Files that take longest come first, so that no process is left alone with one of them at the end.
_LONG = (
    "test_training_distributed", "test_exploration_cluster", "test_exports_c", "test_cli_compress",
    "test_compression_rate_distortion", "test_zoo", "test_training_crashes", "test_exploration", "test_training",
    "test_training_resume", "test_models_imagenet", "test_cluster", "test_exports_web", "test_exports_page",
    "test_training_options", "test_fileformat_attacks", "test_engine_ports", "test_quantization_published",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    places = {name: place for place, name in enumerate(_LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(_LONG)))
