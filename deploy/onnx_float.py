"""The float network as ONNX, and how closely ONNX Runtime follows torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ExportError
from ..networks import Network
from ..neurons.program import Arg
from .arrivals import IntConnection
from .artefact import write_all
from .folding import fold
from .integer import checked_lengths
from .names import checked_name
from .onnx_graph import Graph
from .onnx_step import Link, Part, StepPrinter
from .target_onnx import latency, open_model, run_stream, run_windows
from .verify import Stimuli

REAL = np.float32
NODES = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "neg": "Neg", "abs": "Abs", "min": "Min", "max": "Max",
    "exp": "Exp", "sqrt": "Sqrt",
}  # fmt: skip
READOUT = {"sum": "sum", "sum_softmax": "sum", "mean": "mean", "max": "max", "last": "last"}


def export_float_onnx(net: Network, folder: str | Path, name: str) -> list[Path]:
    """Write the float network as ``NAME_float.onnx`` (whole windows) and ``NAME_float_step.onnx`` (one step): the same
    inputs and outputs as the integer models', in float32. Batch norm is folded, dropout is gone, delays are whole.

    Raises:
        ExportError: the network has no readout, or weights that are not finite; nothing is written.
        ToolError: the package onnx is missing.
    """
    training = net.training
    net.eval()
    try:
        printer = FloatPrinter(net)
    finally:
        net.train(training)
    return write_all(folder, printer.models(f"{checked_name(name)}_float", net.dt))


class FloatPrinter(StepPrinter):
    """Prints one network's step programs."""

    state_dtype, readout_dtype, kind = REAL, REAL, "float"

    def __init__(self, net: Network) -> None:
        if net.readout_of is None:
            raise ExportError("the network has no readout; name one with net.readout(population, 'sum')")
        self.net = net
        self.bias: dict[str, np.ndarray] = {}
        inputs = [Part(n, net.graph.nodes[n]["size"], REAL) for n in net.inputs]
        parts = [self._part(n) for stage in net.schedule() for n in stage.populations]
        kind = READOUT[net.readout_of[1]]
        super().__init__(inputs, parts, (net.readout_of[0], kind), float(np.finfo(REAL).min), self._about(kind))

    def _about(self, kind: str) -> str:
        lines = [f"A spiking network in 32-bit floating point. Time step: {self.net.dt:g} ms"]
        for name in self.net.populations:
            neuron = self.net.neuron(name)
            lines += ["", f"Population {name}: {neuron.size} x {getattr(neuron, 'label', type(neuron).__name__)}"]
            lines += [f"  {line}" for line in str(neuron.program(self.net.dt)).splitlines()]
        return "\n".join([*lines, "", f"Readout: {kind} of {self.net.readout_of[0]}", ""])  # type: ignore[index]

    def _part(self, name: str) -> Part:
        neuron = self.net.neuron(name)
        folded, self.bias[name] = fold(self.net, name, f"population {name!r}")
        links = []
        for c in folded:
            # where spikes arrive is the same as in integers
            back = IntConnection(c.name, c.source, c.delay, c.weights, c.delays).back
            links.append(Link(c.name, c.source, c.weights.astype(REAL), back, c.delay > 0))
        values = neuron.values(self.net.dt)
        starts = {
            s: np.broadcast_to(_number(values[v]) if isinstance(v, str) else np.array(v, REAL), (neuron.size,))
            for s, v in neuron.program(self.net.dt).initial.items()
        }
        return Part(name, neuron.size, REAL, tuple(links), starts)

    def product(self, g: Graph, value: str, source: Part, weights: np.ndarray, out: str) -> str:
        return g.op("MatMul", [value, g.constant(f"{out.removesuffix(' arrives')} weights", weights)], out)

    def update(
        self, g: Graph, part: Part, arrived: Sequence[str], state: Mapping[str, str], batch: str
    ) -> tuple[dict[str, str], str]:
        neuron, label = self.net.neuron(part.name), part.name
        program = neuron.program(self.net.dt)
        shape = g.op("Concat", [batch, g.sizes(part.size)], f"{label} shape", axis=0)
        terms = list(arrived)
        if np.any(self.bias[label]) or not terms:
            bias = g.constant(f"{label} bias", self.bias[label][None].astype(REAL))
            terms.append(bias if terms else g.op("Expand", [bias, shape], f"{label}.current"))
        current = terms[0]
        for i, more in enumerate(terms[1:], 2):
            current = g.op("Add", [current, more], f"{label}.current{'' if i == len(terms) else ', part'}")
        values: dict[str, str] = {**state, "current": current}
        for name, value in neuron.values(self.net.dt).items():
            if name in program.params:
                values[name] = g.constant(f"{label}.{name}", np.atleast_1d(_number(value)))
        full = {*state, "current"}

        def read(arg: Arg) -> str:
            return values[arg] if isinstance(arg, str) else g.number(float(REAL(arg)), REAL)

        def result(arg: Arg, out: str) -> str:
            return read(arg) if arg in full else g.op("Expand", [read(arg), shape], out)

        for op in program.ops:
            values[op.name] = _print(g, op.kind, [read(a) for a in op.args], f"{label}.{op.name}")
            if full & set(op.args):
                full.add(op.name)
        following = {s: result(a, f"{label}.{s} next") for s, a in program.next_state.items()}
        return following, result(program.output, f"{label} sends")


def _print(g: Graph, kind: str, args: list[str], out: str) -> str:
    if kind in NODES:
        return g.op(NODES[kind], args, out)
    if kind == "detach":
        return args[0]
    if kind == "reciprocal":
        return g.op("Div", [g.number(1.0, REAL), args[0]], out)
    if kind == "where":
        return g.op("Where", [g.cast(args[0], np.bool_, f"{out}?"), *args[1:]], out)
    test = "GreaterOrEqual" if kind == "ge" else "Greater"
    over = args if kind != "fire" else [args[0], g.number(0.0, REAL)]
    return g.cast(g.op(test, over, f"{out}?"), REAL, out)


def _number(value: Tensor) -> np.ndarray:
    return value.detach().cpu().numpy().astype(REAL)


@dataclass(frozen=True)
class FloatAgreement:
    """ONNX Runtime against torch. ``flip_rate``: differing spikes per spike of torch; ``error``: the largest difference
    of a real output, over the larger of 1 and its size, before a sample's first differing spike; ``same_spikes`` and
    ``same_class``: shares of the samples; ``stream_differing``: spikes in which the single-step model differs from the
    whole window; ``figures``: ``classes`` of every sample by ONNX Runtime, the bytes of both files, what they take.
    """

    samples: int
    spikes: int
    differing_spikes: int
    flip_rate: float
    error: float
    same_spikes: float
    same_class: float
    stream_differing: int
    figures: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def float_agreement(
    net: Network, folder: str | Path, name: str, x: Stimuli, lengths: np.ndarray | None = None
) -> FloatAgreement:
    """Run the float models that :func:`export_float_onnx` wrote on ``x`` [T, B, N] and compare them with ``net``.

    Raises:
        ToolError: ONNX Runtime is missing, or refuses the files.
    """
    inputs = {n: np.asarray(v, REAL) for n, v in (x if isinstance(x, Mapping) else {net.inputs[0]: x}).items()}
    steps, batch = next(iter(inputs.values())).shape[:2]
    ends = checked_lengths(lengths, steps, batch)
    folder = Path(folder)
    given = {f"in.{n}": v[: ends.max()] for n, v in inputs.items()}
    files = [folder / f"{name}_float.onnx", folder / f"{name}_float_step.onnx"]
    whole, step = (open_model(path) for path in files)
    got, stream = run_windows(whole, given, ends), run_stream(step, given, ends)
    training = net.training
    net.eval()
    try:
        with torch.no_grad():
            like = next(net.parameters(), torch.zeros(()))
            tensors = {n: torch.as_tensor(v[: ends.max()]).to(like) for n, v in inputs.items()}
            real = net(tensors, lengths=torch.as_tensor(ends), record=tuple(net.populations))
    finally:
        net.train(training)
    valid = np.arange(ends.max())[:, None] < ends
    spiking = [n for n in net.populations if net.neuron(n).program(net.dt).output_kind != "real"]
    wanted = {n: real.recorded[n].cpu().numpy() * valid[..., None] for n in net.populations}
    flips = np.zeros(valid.shape, np.int64)
    for n in spiking:
        flips += (wanted[n] != got[f"out.{n}"]).sum(2)
    before = (np.cumsum(flips, 0) == 0) & valid
    error = 0.0
    for n in set(net.populations) - set(spiking):
        apart = np.abs(wanted[n] - got[f"out.{n}"]) / np.maximum(1.0, np.abs(wanted[n]))
        error = max(error, float(apart[before].max(initial=0.0)))
    spikes = sum(int(np.abs(wanted[n]).sum()) for n in spiking)
    return FloatAgreement(
        batch, spikes, int(flips.sum()), float(flips.sum()) / max(1, spikes), error,
        float(np.mean(flips.sum(0) == 0)), float(np.mean(real.output.argmax(1).cpu().numpy() == got["class"])),
        sum(int(np.sum(got[f"out.{n}"] != stream[f"out.{n}"])) for n in spiking),
        {"classes": got["class"].tolist(), "bytes": files[0].stat().st_size, "bytes_step": files[1].stat().st_size}
        | latency(whole, step, given),
    )  # fmt: skip
