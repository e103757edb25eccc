"""Where products by spikes overtake dense ones, and what a surrogate of compact support saves: on this machine.

    python -m benchmarks.crossover [--threads N]

The constants ``SPARSE_BELOW`` and ``GATE_BELOW`` of ``neurons/engines`` are read off these tables.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

DENSITIES = (0.01, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)


def milliseconds(*calls: Callable[[], object], rounds: int = 7) -> list[float]:
    """Median milliseconds of each call, in turns."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds + 1):
        for call, own in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            own.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(own[1:]) for own in times]  # the first round compiles


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crossover", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", str(options.threads))

    import numpy as np
    import torch
    from rich.console import Console
    from rich.table import Table

    import ranvier as rv
    from ranvier.neurons.engines import products, sparse

    torch.set_num_threads(options.threads)
    console = Console(width=max(130, Console().width))  # also into a file
    generator = torch.Generator().manual_seed(0)

    def spikes(*shape: int, density: float) -> torch.Tensor:
        return (torch.rand(shape, generator=generator) < density).float()

    table = Table(
        "samples", "H", *(f"{100 * d:g} %" for d in DENSITIES), "dense", title="step of a loop, one thread, µs"
    )
    for rows, size in ((1, 256), (4, 256), (16, 256), (32, 256), (16, 512), (16, 1024)):
        matrix = torch.randn(size, size, generator=generator).numpy()
        total, index, cells = np.zeros((rows, size), np.float32), np.empty(size, np.int64), []
        for density in DENSITIES:
            values = spikes(rows, size, density=density).numpy()
            call = lambda v=values, t=total, m=matrix, i=index: [products.add_sparse(t, v, m, i) for _ in range(20)]  # noqa: E731
            cells.append(milliseconds(call)[0] * 50)
        values = torch.randn(rows, size, generator=generator).numpy()
        dense = (
            milliseconds(lambda v=values, t=total, m=matrix: [products.add_dense(t, v, m) for _ in range(20)])[0] * 50
        )
        table.add_row(str(rows), str(size), *(f"{c:.1f}{'*' if c > dense else ''}" for c in cells), f"{dense:.1f}")
    console.print(table, "* slower than the dense product; the switch is at SPARSE_BELOW =", products.SPARSE_BELOW)

    table = Table("rows", "K", "N", "", *(f"{100 * d:g} %" for d in DENSITIES), "dense", title="whole sequence, ms")
    for rows, terms, columns in ((8000, 140, 256), (8000, 256, 256), (960, 512, 512), (8000, 1024, 1024)):
        weight, grad = torch.randn(columns, terms), torch.randn(rows, columns)
        kinds = ("forward", lambda v, w=weight: sparse.sparse_linear(v, w, None), lambda v, w=weight: v @ w.t())
        outer = ("gradient", lambda v, g=grad: sparse.outer_sum(g, v), lambda v, g=grad: g.t() @ v)
        below, sparse.SPARSE_BELOW = sparse.SPARSE_BELOW, 2.0
        for name, by_spikes, dense in (kinds, outer):
            cells, base = [], []
            for density in DENSITIES:
                values = spikes(rows, terms, density=density)
                found = milliseconds(lambda v=values, f=by_spikes: f(v), lambda v=values, f=dense: f(v))
                cells.append(found[0])
                base.append(found[1])
            floor = statistics.median(base)
            shown = (f"{c:.1f}{'*' if c > floor else ''}" for c in cells)
            table.add_row(str(rows), str(terms), str(columns), name, *shown, f"{floor:.1f}")
        sparse.SPARSE_BELOW = below
    console.print(table, "* slower than the dense product; the switch is at SPARSE_BELOW =", sparse.SPARSE_BELOW)

    table = Table("surrogate", "width", "forward and backward, ms", title="compact support: B 32, T 250, C 140, H 256")
    nets = []
    x, seed = spikes(250, 32, 140, density=0.05), torch.randn(250, 32, 256, generator=generator)
    for surrogate in (rv.FastSigmoid(0.3), rv.Triangle(0.6), rv.Triangle(0.3), rv.Boxcar(0.3), rv.Boxcar(0.1)):
        torch.manual_seed(0)
        net = rv.Network(engine="numba")
        source, hidden = net.input(140), net.population(rv.LIF(256, surrogate=surrogate))
        net.connect(source, hidden, rv.Dense(gain=1.5))
        net.connect(hidden, hidden, rv.Dense(gain=0.5))
        nets.append((surrogate, net))
    calls = [lambda net=net: (net(x).output * seed).sum().backward() for _, net in nets]
    for (surrogate, _), found in zip(nets, milliseconds(*calls), strict=True):
        table.add_row(surrogate.kind, f"{surrogate.width:g}", f"{found:.1f}")
    console.print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
