"""Finding the worker processes of a cluster that a test, or a program that it started, runs."""

import os
from pathlib import Path


def busy_workers(function, ancestor=None):
    """Processes below `ancestor`, by default this one, that carry out a function for Ray at this moment."""
    ancestor = ancestor or os.getpid()
    parents, titles = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(path.name)] = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
            titles[int(path.name)] = (path / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue

    def is_ours(pid):
        while pid > 1 and pid != ancestor:
            pid = parents.get(pid, 0)
        return pid == ancestor

    return [pid for pid, title in titles.items() if "ray::" in title and function in title and is_ours(pid)]
