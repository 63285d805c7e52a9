"""Joining a Ray cluster, or starting one on this machine alone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from ..errors import ClusterError, MissingDependencyError
from ..process import keeping_signal_handlers, usable_cores

__all__ = ["LOCAL", "connected"]

LOCAL = "local"


@contextlib.contextmanager
def connected(address: str) -> Iterator[int]:
    """Join a cluster while the block runs; a process that has already joined one stays in it.

    Every machine of the cluster needs this package, and the same version of Python and Ray.

    Args:
        address: `local` for a cluster of this machine's cores, or what `ray start` printed: `auto`, `HOST:PORT`.

    Yields:
        The cluster's processors.

    Raises:
        MissingDependencyError: If Ray is not installed.
        ClusterError: If the cluster cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it reports to its makers unless told not to
    # Workers are as nice as 15 by default: anything else on the machine then leaves them 3 % of a core.
    os.environ.setdefault("RAY_worker_niceness", "0")
    with MissingDependencyError.named():
        import ray
    if ray.is_initialized():
        yield _processors()
        return
    settings = {"num_cpus": usable_cores(), "include_dashboard": False} if address == LOCAL else {}
    # Ray handles SIGTERM from its start to the end of the process, even after its shutdown. Processes that are forked
    # later would ignore SIGTERM, and a process that waits for them would never return.
    with keeping_signal_handlers():
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", **settings)
        except (OSError, RuntimeError, ValueError, AssertionError) as error:
            why = (str(error) or type(error).__name__).splitlines()[0]
            raise ClusterError(f"{address}: expected the address of a running Ray cluster, got none ({why})") from None
        try:
            yield _processors()
        finally:
            ray.shutdown()


def _processors() -> int:
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1)))
