"""Bytes kept between forward and backward of one recurrent layer, beyond its parameters and its input.

    python -m benchmarks.memory                                # B32 T250 C140 H256 5 %
    python -m benchmarks.memory --cell 128,250,140,512,5% --json

Counted twice: the distinct storages that autograd saves (``torch.autograd.graph.saved_tensors_hooks``), and what the C
library's allocator holds more after the forward pass than before (``mallinfo2``), which sees whatever the hooks do not.
The latter has the output in it, which is not needed for every backward.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import sys
from typing import Any

import torch

from .peers import LAYERS, Absent, Layer, ranvier, versions
from .workload import Cell, Workload, make_workload

NAMES = ("ranvier-numba", "ranvier-eager", "torch-loop", "torch-rnn", "norse", "snntorch", "spikingjelly")


class _MallInfo(ctypes.Structure):
    """``struct mallinfo2``: ten numbers, of which the fifth is bytes mapped and the eighth bytes in use in arenas."""

    _fields_ = [("numbers", ctypes.c_size_t * 10)]


def allocated() -> int | None:
    """Bytes in use, of every arena and mapped ones; None without glibc 2.33 or newer."""
    try:
        ask = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError):
        return None
    ask.restype = _MallInfo
    info = ask()
    return int(info.numbers[7] + info.numbers[4])


def kept_bytes(layer: Layer, x: torch.Tensor) -> tuple[int, int | None]:
    """(saved, allocated): bytes of distinct storages saved by autograd, without those of parameters and ``x``; bytes
    that the allocator holds more than before the forward pass.
    """
    own = {t.untyped_storage().data_ptr() for t in (*layer.parameters, x)}
    found: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    layer.run(x).sum().backward()  # compiles, fills caches
    for p in layer.parameters:
        p.grad = None
    gc.collect()
    before = allocated()
    output = layer.run(x)
    after = allocated()
    del output
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = layer.run(x)
    del output
    return sum(found.values()), None if before is None or after is None else after - before


def measure(work: Workload, names: tuple[str, ...] = NAMES) -> dict[str, Any]:
    """The cell, and ``saved_bytes``, ``allocated_bytes`` and ``reasons`` by contestant."""
    builders = {**LAYERS, "ranvier-eager": lambda w: ranvier(w, "eager")}
    saved: dict[str, int | None] = {}
    held: dict[str, int | None] = {}
    reasons: dict[str, str] = {}
    x = torch.from_numpy(work.x)
    for name in names:
        try:
            saved[name], held[name] = kept_bytes(builders[name](work), x)
        except Absent as absent:
            saved[name] = held[name] = None
            reasons[name] = str(absent)
    return {**work.cell.as_dict(), "saved_bytes": saved, "allocated_bytes": held, "reasons": reasons}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--cell", default="32,250,140,256,0.05", metavar="B,T,C,H,RATE")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    try:
        cell = Cell.parse(options.cell)
    except ValueError as error:
        parser.error(str(error))
    found = measure(make_workload(cell))
    if options.json:
        print(json.dumps({**found, "versions": versions()}, indent=1))
        return 0

    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"kept between forward and backward, {cell}", title_justify="left")
    for head in ("", "saved, MB", "of torch-loop", "bytes per neuron and step", "allocated, MB"):
        table.add_column(head, justify="right" if head else "left")
    loop = found["saved_bytes"]["torch-loop"]
    for name in NAMES:
        saved, held = found["saved_bytes"][name], found["allocated_bytes"][name]
        if saved is None:
            table.add_row(name, "–", "–", "–", "–")
            continue
        per_step = saved / (cell.T * cell.B * cell.H)
        shown = "–" if held is None else f"{held / 1e6:.1f}"
        table.add_row(name, f"{saved / 1e6:.1f}", f"{saved / loop:.2f}", f"{per_step:.1f}", shown)
    console = Console()
    console.print(table)
    for name, reason in found["reasons"].items():
        console.print(f"{name}: {reason}", highlight=False, markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
