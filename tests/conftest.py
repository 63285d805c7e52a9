"""Settings that have to stand before torch is loaded."""

import os

# Waiting threads that spin make tests many times slower when anything else runs on the same cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
