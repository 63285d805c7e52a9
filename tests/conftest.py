"""Settings that have to stand before torch is loaded, and the order of the files."""

import os

# Waiting threads that spin make tests many times slower when anything else runs on the same cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:  # there is a process for each core already
    os.environ.setdefault("OMP_NUM_THREADS", "1")
