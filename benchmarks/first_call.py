"""How long the first call of the numba engine takes: compiling a recurrent LIF, and reading it from the cache later.

    python -m benchmarks.first_call

Each figure is the first forward and backward pass of a fresh process; imports of torch and ranvier are not counted.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

SCRIPT = """
import time, torch, ranvier as rv
net = rv.Network(engine="numba")
x, h = net.input(5), net.population(rv.LIF(7))
net.connect(x, h, rv.Dense())
net.connect(h, h, rv.Dense())
start = time.perf_counter()
net(torch.rand(3, 2, 5)).output.sum().backward()
print(time.perf_counter() - start)
"""


def first_call(cache: str) -> float:
    """Seconds of the first call of a new process whose caches lie in ``cache``."""
    environment = {**os.environ, "RANVIER_CACHE": cache, "NUMBA_CACHE_DIR": os.path.join(cache, "numba")}  # noqa: PTH118
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment, check=True)
    return float(done.stdout)


def main() -> int:
    with tempfile.TemporaryDirectory() as cache:
        print(f"compiled: {first_call(cache):.1f} s")
        later = sorted(first_call(cache) for _ in range(5))
        print(f"from the cache: {later[2]:.2f} s (median of 5)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
