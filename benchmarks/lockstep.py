"""The two readers of `.sqz` on mutated files, as many as asked for: the same verdict and the same error, or it stops.

    python benchmarks/lockstep.py --count 2000000            # until all are read
    python benchmarks/lockstep.py --count 2000000 --for 400  # some of them; call it again to go on

It goes on where results/lockstep.json of the same seed ends; `--new` begins again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter

from environment import ROOT, describe_run, write_results

sys.path.insert(0, str(ROOT / "tests"))
from lockstep import compare  # noqa: E402

_BLOCK = 10_000
_RESULTS = ROOT / "results/lockstep.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--own", type=float, default=0.05, help="share that Python decodes without the C library")
    parser.add_argument("--for", type=float, default=float("inf"), dest="seconds", help="stop after so many seconds")
    parser.add_argument("--new", action="store_true", help="forget the files that were read before")
    arguments = parser.parse_args()
    kept = {"seed": arguments.seed, "share_without_library": arguments.own}
    before = {} if arguments.new or not _RESULTS.exists() else json.loads(_RESULTS.read_text())
    if {key: before.get(key) for key in kept} != kept:
        before = {}
    found, seconds = Counter(before.get("verdicts", {})), before.get("seconds", 0.0)
    start = time.monotonic()
    while found.total() < arguments.count and time.monotonic() - start < arguments.seconds:
        seed = arguments.seed * 1_000_000 + found.total() // _BLOCK
        found.update(compare(_BLOCK, seed, share_of_own=arguments.own))
        spent = seconds + time.monotonic() - start
        results = {"run": describe_run(), "n_files": found.total(), **kept, "seconds": round(spent, 1)}
        write_results("lockstep", results | {"verdicts": dict(found), "differences": 0})
        print(f"{found.total():,} files, {spent:.0f} s", flush=True)


if __name__ == "__main__":
    main()
