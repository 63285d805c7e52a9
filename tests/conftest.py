"""Settings that have to stand before torch is loaded, and the order of the test files."""

import os

# Waiting threads that spin make tests many times slower when anything else runs on the same cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:  # one process for each core runs already
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Files that take longest come first, so that no process is left alone with one of them at the end.
_LONG = (
    "test_explore_cluster", "test_cluster", "test_train_crashes", "test_train_distributed", "test_native_ports",
    "test_explore", "test_train_resume", "test_web_page", "test_train_options", "test_fileformat_attacks",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    places = {name: place for place, name in enumerate(_LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(_LONG)))
