"""A training step of one recurrent layer on a GPU: the triton engine, plain torch loops, and cuDNN's RNN and LSTM.

    python -m benchmarks.gpu                            # a grid of cells
    python -m benchmarks.gpu --cell 128,250,140,256,5%  # one cell: B,T,C,H,rate
    python -m benchmarks.gpu --json
    python -m benchmarks.gpu --kernels                  # registers and spills of the kernels; needs no GPU
    python -m benchmarks.gpu --delays axonal,25 dendritic,25 synaptic,25 synaptic,250 axonal+dendritic,25 axonal,8-25

With ``--delays`` the recurrent connection has learned delays of 1 to 25 steps (8 to 25: the loop then advances 8 steps
at a time), and triton is compared with itself: with whole delays that are not learned (one tap), and without any.

Before anything is timed the spikes and gradients of triton and eager are compared, and what differs is printed with the
times. Times are those of CUDA events around whole calls, the device idle before each; the median over rounds counts.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import ranvier as rv
from ranvier.errors import RanvierError
from ranvier.neurons import Cell as RanvierCell
from ranvier.neurons import Link

from .peers import Layer, plain_loop
from .workload import DT, TAU_MEM, THRESHOLD, Cell, Workload, make_workload, tune, tuning_cell

GRID = tuple(
    Cell(b, t, 140, h, 0.05)
    for b, t, h in [
        (128, 250, 256), (1, 250, 256), (32, 250, 256), (512, 250, 256), (2048, 250, 256), (128, 100, 256),
        (128, 1000, 256), (128, 250, 64), (128, 250, 128), (128, 250, 512), (128, 250, 1024),
    ]
)  # fmt: skip
DELAYED_GRID = tuple(Cell(b, 250, 140, 256, 0.05) for b in (128, 32, 512))
ROUNDS = 11
WARM_UP = 3
SEED = 7

Build = Callable[[Workload, torch.device], Layer]


@dataclass(frozen=True)
class Delays:
    """Learned delays of ``first`` to ``last`` steps in the loop; ``axonal+dendritic`` ones share these."""

    kind: str
    first: int
    last: int

    @classmethod
    def parse(cls, text: str) -> Delays:
        """``axonal,25`` or ``axonal,8-25``; raises :class:`ValueError` for anything else."""
        found = re.fullmatch(r"(axonal|dendritic|synaptic|axonal\+dendritic),(?:(\d+)-)?(\d+)", text.strip())
        if found is None or not 1 <= int(found[2] or 1) <= int(found[3]):
            raise ValueError(f"delays are a kind and steps, such as axonal,25 or synaptic,8-25, got {text!r}")
        return cls(found[1], int(found[2] or 1), int(found[3]))

    def make(self) -> list[rv.Delay]:
        kinds = self.kind.split("+")
        shared = (self.last - self.first) // 2 if len(kinds) > 1 else 0
        parts = [(self.first, self.last - shared), (0, shared)][: len(kinds)]
        return [rv.Delay(max=b * DT, min=a * DT, kind=k) for k, (a, b) in zip(kinds, parts, strict=True)]

    def __str__(self) -> str:
        return f"{self.kind} {self.first}-{self.last}"


def _ranvier(engine: str, delays: Delays | None = None, frozen: bool = False) -> Build:
    def build(work: Workload, device: torch.device) -> Layer:
        torch.manual_seed(SEED)  # everyone draws the same delays
        net = rv.Network(dt=DT, engine=engine)
        x = net.input(work.cell.C)
        h = net.population(rv.LIF(work.cell.H, tau_mem=TAU_MEM, threshold=THRESHOLD))
        own = delays.make() if delays else []
        w_in = net.connection(net.connect(x, h, rv.Dense(weight=work.w_in))).weight
        w_rec = net.connection(net.connect(h, h, rv.Dense(weight=work.w_rec, delay=own or None))).weight
        for delay in own if frozen else ():
            delay.set_phase("frozen")
        net.to(device)
        learned = [d.steps for d in own if d.steps.requires_grad]
        return Layer(lambda sequence: net(sequence).output, [w_in, w_rec, *learned], w_in)

    return build


def delayed_layers(delays: Delays) -> dict[str, Build]:
    """A loop with these delays, with whole ones that are not learned, and without any."""
    return {
        "ranvier-triton": _ranvier("triton", delays),
        "ranvier-triton-one-tap": _ranvier("triton", delays, frozen=True),
        "ranvier-triton-no-delay": _ranvier("triton"),
        "ranvier-triton-bf16": _ranvier("triton-bf16", delays),
        "ranvier-eager": _ranvier("eager", delays),
        "ranvier-eager-no-delay": _ranvier("eager"),
    }


def _loop(work: Workload, device: torch.device) -> Layer:
    w_in, w_rec = (torch.from_numpy(w).to(device).requires_grad_() for w in (work.w_in, work.w_rec))
    return Layer(lambda x: plain_loop(x, w_in, w_rec), [w_in, w_rec], w_in)


def _cudnn(make: Callable[..., nn.RNNBase], **options: Any) -> Build:
    def build(work: Workload, device: torch.device) -> Layer:
        layer = make(work.cell.C, work.cell.H, bias=False, **options).to(device)
        return Layer(lambda x: layer(x)[0], list(layer.parameters()))

    return build


LAYERS: dict[str, Build] = {
    "ranvier-triton": _ranvier("triton"),
    "ranvier-triton-bf16": _ranvier("triton-bf16"),
    "ranvier-eager": _ranvier("eager"),
    "torch-loop": _loop,
    "torch-rnn": _cudnn(nn.RNN, nonlinearity="relu"),
    "torch-lstm": _cudnn(nn.LSTM),
}


def tuned(cell: Cell, device: torch.device) -> Workload:
    """The work, with the input gain at which hidden neurons fire at the cell's rate."""
    small = make_workload(tuning_cell(cell))
    x, w_in, w_rec = (torch.from_numpy(a).to(device) for a in (small.x, small.w_in, small.w_rec))

    def rate(gain: float) -> float:
        with torch.no_grad():
            return float(plain_loop(x, w_in * gain, w_rec).mean())

    work = make_workload(cell)
    work.w_in[:] *= np.float32(tune(rate, cell.rate))
    return work


def step(layer: Layer, x: Tensor, upstream: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Forward and backward: the output and the gradients."""
    output = layer.run(x)
    return output.detach(), torch.autograd.grad((output * upstream).sum(), layer.parameters)


def _timed(call: Callable[[], object], device: torch.device) -> float:
    """Milliseconds of one call, from an idle device until its last kernel has ended."""
    if device.type != "cuda":
        start = time.perf_counter()
        call()
        return 1000 * (time.perf_counter() - start)
    torch.cuda.synchronize(device)
    start_event, end_event = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start_event.record()
    call()
    end_event.record()
    torch.cuda.synchronize(device)
    return start_event.elapsed_time(end_event)


def measure(
    cell: Cell, names: Sequence[str], device: torch.device, rounds: int = ROUNDS, delays: Delays | None = None
) -> dict[str, Any]:
    """One cell: medians in ms, the first call (which compiles) in s, and how far triton is from eager."""
    builds = delayed_layers(delays) if delays else LAYERS
    work = tuned(cell, device)
    x, upstream = torch.from_numpy(work.x).to(device), torch.from_numpy(work.upstream).to(device)
    layers: dict[str, Layer] = {}
    reasons: dict[str, str] = {}
    first_s: dict[str, float] = {}
    for name in names:
        try:
            layers[name] = builds[name](work, device)
            first_s[name] = round(_timed(lambda n=name: step(layers[n], x, upstream), device) / 1000, 2)
            for _ in range(WARM_UP):
                step(layers[name], x, upstream)
        except (RanvierError, torch.cuda.OutOfMemoryError) as error:
            reasons[name] = f"{type(error).__name__}: {error}"
            layers.pop(name, None)
    agreement: dict[str, float] = {}
    if {"ranvier-triton", "ranvier-eager"} <= set(layers):
        (spikes, grads), (expected, wanted) = (
            step(layers[n], x, upstream) for n in ("ranvier-triton", "ranvier-eager")
        )
        agreement["differing_spikes"] = float((spikes != expected).double().mean())
        worst = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(grads, wanted, strict=True))
        agreement["gradient_difference"] = worst
    samples: dict[str, dict[str, list[float]]] = {n: {"forward": [], "step": []} for n in layers}
    for _ in range(rounds):
        for name, layer in layers.items():
            samples[name]["forward"].append(_timed(lambda current=layer: current.run(x), device))
            samples[name]["step"].append(_timed(lambda current=layer: step(current, x, upstream), device))
    return {
        **cell.as_dict(),
        "delays": str(delays or ""),
        "ms": {n: round(statistics.median(samples[n]["step"]), 3) if n in samples else None for n in names},
        "forward_ms": {n: round(statistics.median(samples[n]["forward"]), 3) if n in samples else None for n in names},
        "samples_ms": {n: s["step"] for n, s in samples.items()},
        "first_s": first_s,
        "agreement": agreement,
        "reasons": reasons,
    }


def table(results: Sequence[dict[str, Any]], names: Sequence[str], card: str) -> str:
    """The cells as a table of ms, with what each is in times of triton's."""
    lines = [f"| cell, forward and backward, ms | {' | '.join(names)} | differing spikes | gradients off by |"]
    lines.append("| --- |" + " ---: |" * (len(names) + 2))
    for r in results:
        own = r["ms"].get("ranvier-triton")
        row = [f"B{r['B']} T{r['T']} C{r['C']} H{r['H']} {r['rate']:g} {r['delays']}".strip()]
        for name in names:
            ms = r["ms"][name]
            ratio = f" ({ms / own:.2g}×)" if own and ms and name != "ranvier-triton" else ""
            row.append("absent" if ms is None else f"{ms:.3g}{ratio}")
        agreement = r["agreement"]
        row += [f"{agreement[k]:.1e}" if k in agreement else "" for k in ("differing_spikes", "gradient_difference")]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join([*lines, "", card])


def about(device: torch.device) -> str:
    """The card and the versions."""
    import triton  # beside torch wherever there is CUDA

    props = torch.cuda.get_device_properties(device)
    return (
        f"{props.name}, {props.multi_processor_count} processors, compute capability {props.major}.{props.minor}; "
        f"torch {torch.__version__}, triton {triton.__version__}. TF32 is off for everyone."
    )


def kernels() -> str:
    """What the loop kernels need of a GPU, as a table; compiled here, whether there is a GPU or not."""
    from ranvier.neurons.engines.plan import plan_of
    from ranvier.neurons.engines.triton_ahead import compile_stage

    lines = ["| kernel: registers, shared memory, bytes spilled | 8.0 | 8.9 | 9.0 |", "|---|---:|---:|---:|"]
    sizes = ((rv.LIF, 256), (rv.AdLIF, 256), (rv.LIF, 128), (rv.AdLIF, 128))
    work: list[tuple[str, Any, int, str]] = [(e, *s, "") for e in ("triton", "triton-bf16") for s in sizes]
    work += [("triton", *s, "axonal+dendritic") for s in sizes]
    for engine, make, size, kind in work:
        net = rv.Network(dt=DT)
        h = net.population(make(size), name="h")
        delay = Delays(kind, 1, 25).make() if kind else None
        back = net.connection(net.connect(h, h, rv.Dense(delay=delay)))
        neuron = net.neuron("h")
        values = {n: v.detach().clone().requires_grad_() for n, v in neuron.values(DT).items()}
        link = Link("h", "h", back.weight, 1, None, back.taps())
        plan = plan_of(engine, [RanvierCell("h", neuron.program(DT), values)], [link], False, True, False)
        found = [compile_stage(plan, [size], capability) for capability in (80, 89, 90)]
        for way in ("forward", "backward"):
            needs = [f.get(f"loop {way}") for f in found]
            shown = " | ".join(f"{r.registers}, {r.shared // 1024} KB, {r.spills}" if r else "by turns" for r in needs)
            lines.append(f"| {make.__name__} {size}{f', {kind} delays' if kind else ''}, {engine}, {way} | {shown} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cell", type=Cell.parse, action="append", help="B,T,C,H,rate instead of the grid")
    parser.add_argument(
        "--delays", type=Delays.parse, nargs="+", metavar="KIND,STEPS", help="delays in the loop, such as axonal,25"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--kernels", action="store_true", help="compile the kernels and print what they need")
    options = parser.parse_args(arguments)
    if options.kernels:
        print(kernels())
        return
    if not torch.cuda.is_available():
        raise SystemExit(
            "benchmarks.gpu: torch finds no GPU here, so there is nothing to measure. On a machine with one, install "
            "torch with CUDA and run it again; benchmarks.train_step measures the CPU."
        )
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # float32 for everyone
    device = torch.device("cuda", torch.cuda.current_device())
    results = []
    for delays in options.delays or (None,):
        for cell in options.cell or (DELAYED_GRID if delays else GRID):
            print(f"{cell} {delays or ''} ...", file=sys.stderr, flush=True)
            names = list(delayed_layers(delays) if delays else LAYERS)
            results.append(measure(cell, names, device, options.rounds, delays))
            torch.cuda.empty_cache()
    if options.json:
        print(json.dumps({"card": about(device), "cells": results}))
    else:
        print(table(results, list(results[0]["ms"]), about(device)))
        for r in results:
            for name, reason in r["reasons"].items():
                print(f"- B{r['B']} T{r['T']} H{r['H']} {r['delays']} {name}: {reason}")


if __name__ == "__main__":
    main()
