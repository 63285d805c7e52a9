"""Long calls of a function on the processors of a cluster, independent of each other; results arrive in any order."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..errors import ClusterError
from .connection import connected

__all__ = ["ClusterTasks"]

_RETRIES = 3
_LOOK_EVERY_S = 0.5
_COUNT_EVERY_S = 5.0
_AHEAD = 2  # calls handed out for each processor, so that none waits for the caller to take a result


class ClusterTasks:
    """Calls under way on a cluster, one processor each, or one GPU where the cluster has any.

    A call whose machine or process was lost is made again elsewhere; it must be one that continues or may be repeated.
    """

    def __init__(self, function: Callable[..., Any], capacity: int, n_gpus: float) -> None:
        """Make it by `ClusterTasks.open`."""
        import ray

        self.capacity = capacity
        """Calls that the cluster can make at the same time; `run_all` keeps it up to date."""
        self._kind = "GPU" if n_gpus else "CPU"

        def call(*arguments: Any) -> Any:  # Ray takes functions that Python wrote, and no others
            return function(*arguments)

        self._call = ray.remote(num_cpus=1, num_gpus=n_gpus, max_retries=_RETRIES)(call).options(name=function.__name__)
        self._under_way: dict[Any, Any] = {}

    @classmethod
    @contextlib.contextmanager
    def open(cls, address: str, function: Callable[..., Any], *, use_gpus: bool = True) -> Iterator[ClusterTasks]:
        """Join a cluster, as by `connected`, while the block runs; leaving it ends the calls that are under way.

        Arguments and results of the function travel between processes; with `use_gpus` a call takes a GPU if there are.
        """
        with connected(address) as processors:
            import ray

            gpus = int(ray.cluster_resources().get("GPU", 0)) if use_gpus else 0
            tasks = cls(function, gpus or processors, 1 if gpus else 0)
            try:
                yield tasks
            finally:
                for reference in tasks._under_way:
                    ray.cancel(reference, force=True)

    def share(self, value: Any) -> Any:
        """Send something large to the cluster once; pass what is returned in its place."""
        import ray

        return ray.put(value)

    def submit(self, tag: Any, *arguments: Any) -> None:
        """Make a call, whose result comes with the tag."""
        self._under_way[self._call.remote(*arguments)] = tag

    def run_all(self, calls: Iterable[tuple[Any, tuple[Any, ...]]]) -> Iterator[tuple[Any, Any]]:
        """Make any number of calls, given by tag and arguments; yields tag and result of each as it ends.

        Raises:
            ClusterError: If a call was lost again and again, or raised.
        """
        counted = time.monotonic()
        for tag, arguments in calls:
            if time.monotonic() - counted >= _COUNT_EVERY_S:
                self.capacity, counted = self._count(), time.monotonic()
            self.submit(tag, *arguments)
            while len(self._under_way) >= _AHEAD * self.capacity:
                yield self._next()
        while self._under_way:
            yield self._next()

    def _count(self) -> int:
        import ray

        # Machines join and leave; if there is none now, one may be starting.
        return int(ray.cluster_resources().get(self._kind, 0)) or self.capacity

    def _next(self) -> tuple[Any, Any]:
        result = self.next_result(lambda: False)
        assert result is not None
        return result

    def next_result(self, is_stopped: Callable[[], bool]) -> tuple[Any, Any] | None:
        """Wait for any call to end; returns tag and result, or None once `is_stopped`, which is asked now and then.

        Raises:
            ClusterError: If a call was lost again and again, or raised.
        """
        import ray

        while not is_stopped():
            ready, _ = ray.wait(list(self._under_way), num_returns=1, timeout=_LOOK_EVERY_S)
            if ready:
                tag = self._under_way.pop(ready[0])
                try:
                    return tag, ray.get(ready[0])
                except ray.exceptions.RayError as error:
                    raise ClusterError(f"{tag}: {str(error).strip().splitlines()[-1]}") from None
        return None
