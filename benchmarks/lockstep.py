"""The two readers of `.sqz` on mutated files, as many as asked for: the same verdict and the same error, or it stops.

python benchmarks/lockstep.py --count 2000000
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter

from environment import ROOT, describe_run

sys.path.insert(0, str(ROOT / "tests"))
from lockstep import compare  # noqa: E402

_BLOCK = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--own", type=float, default=0.05, help="share that Python decodes without the C library")
    arguments = parser.parse_args()
    found: Counter[str] = Counter()
    start = time.monotonic()
    for block in range(-(-arguments.count // _BLOCK)):
        seed = arguments.seed * 1_000_000 + block
        found.update(compare(min(_BLOCK, arguments.count - block * _BLOCK), seed, share_of_own=arguments.own))
        results = {"run": describe_run(), "n_files": found.total(), "share_without_library": arguments.own}
        results |= {"seconds": round(time.monotonic() - start, 1), "verdicts": dict(found), "differences": 0}
        (ROOT / "results/lockstep.json").write_text(json.dumps(results, indent=1) + "\n")
        print(f"{found.total():,} files, {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
