"""Exporter to ONNX: prints the integer network as nodes on whole numbers, decides nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .arrivals import IntConnection
from .artefact import contract, write_all
from .integer import IntegerNetwork, IntPopulation
from .names import checked_name
from .onnx_graph import Graph
from .onnx_step import Link, Part, StepPrinter
from .program import ACC, Arg

ZERO_POINT = 128
"""Weights are stored as bytes, this much larger: where both factors are unsigned, no processor's 8-bit product
saturates on the way.
"""
NODES = {
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "neg": "Neg",
    "abs": "Abs",
    "min": "Min",
    "max": "Max",
    "clamp": "Clip",
}


def export_onnx(inet: IntegerNetwork, folder: str | Path, name: str) -> list[Path]:
    """Write ``NAME.onnx`` (runs whole windows), ``NAME_step.onnx`` (one step, for streams) and ``NAME_contract.txt``.

    Raises:
        ExportError: before any file is written.
        ToolError: the package onnx is missing.
    """
    files = IntegerPrinter(inet).models(checked_name(name), inet.dt)
    return write_all(folder, {**files, f"{name}_contract.txt": contract(inet)})


class IntegerPrinter(StepPrinter):
    """Prints one integer network. Values are int64 within a step, states int32 between steps."""

    state_dtype, readout_dtype, kind = np.int32, np.int64, "integer"

    def __init__(self, inet: IntegerNetwork) -> None:
        self.inet = inet
        parts = [self._part(p) for p in inet.populations]
        lowest = int(inet.readout_start()[0])
        inputs = [Part(i.name, i.size, np.int32 if i.samples else np.uint8) for i in inet.inputs]
        super().__init__(inputs, parts, inet.readout, lowest, contract(inet))

    def _part(self, p: IntPopulation) -> Part:
        links = tuple(Link(c.name, c.source, self.weights(c), c.back, c.delay > 0) for c in p.connections)
        states = {s.name: p.start(s.name) for s in p.program.states}
        return Part(p.name, p.size, np.uint8 if p.program.binary else np.int32, links, states)

    def weights(self, c: IntConnection) -> np.ndarray:
        """int8, or int32 where they count powers of two, as beside samples."""
        factors = next((i.factors for i in self.inet.inputs if i.name == c.source), np.ones(1, np.int64)) << c.shift
        return c.weights if np.all(factors == 1) else (c.weights * factors).astype(np.int32)

    def product(self, g: Graph, value: str, source: Part, weights: np.ndarray, out: str) -> str:
        name = f"{out.removesuffix(' arrives')} weights"
        if source.dtype == np.uint8 and weights.dtype == np.int8:
            stored = g.constant(name, (weights.astype(np.int16) + ZERO_POINT).astype(np.uint8))
            return g.op("MatMulInteger", [value, stored, "", g.number(ZERO_POINT, np.uint8)], out)
        wide = g.root.cast(g.constant(name, weights), np.int32, f"{name}, wide")
        return g.op("MatMul", [g.cast(value, np.int32, f"{out}, wide"), wide], out)

    def update(
        self, g: Graph, part: Part, arrived: Sequence[str], state: Mapping[str, str], batch: str
    ) -> tuple[dict[str, str], str]:
        population = self.inet.population(part.name)
        program, label = population.program, part.name
        shape = g.op("Concat", [batch, g.sizes(part.size)], f"{label} shape", axis=0)
        values: dict[str, str] = {}
        if arrived:
            total = arrived[0]
            for more in arrived[1:]:
                total = g.op("Add", [total, more], f"{label}.{ACC}, part")
            values[ACC] = g.cast(total, np.int64, f"{label}.{ACC}")
        else:
            values[ACC] = g.op("Expand", [g.number(0, np.int64), shape], f"{label}.{ACC}")
        for s in program.states:
            values[s.name] = g.cast(state[s.name], np.int64, f"{label}.{s.name}")
        for t in program.tables:
            values[t.name] = g.constant(f"{label}.{t.name}", population.table(t.name).astype(np.int64))
        full = {ACC, *(s.name for s in program.states)}

        def read(arg: Arg) -> str:
            return values[arg] if isinstance(arg, str) else g.number(arg, np.int64)

        def result(arg: Arg, dtype: Any, out: str) -> str:
            whole = read(arg) if arg in full else g.op("Expand", [read(arg), shape], f"{out}, for all")
            return g.cast(whole, dtype, out)

        for op in program.ops:
            values[op.name] = _print(g, op.kind, [read(a) for a in op.args], op.args, f"{label}.{op.name}")
            if full & set(op.args):
                full.add(op.name)
        following = {s: result(a, self.state_dtype, f"{label}.{s} next") for s, a in program.next_state.items()}
        return following, result(program.output, part.dtype, f"{label} sends")


def _print(g: Graph, kind: str, args: list[str], given: Sequence[Arg], out: str) -> str:
    if kind in NODES:
        return g.op(NODES[kind], args, out)
    if kind in ("gt", "ge"):
        flag = g.op("Greater" if kind == "gt" else "GreaterOrEqual", args, f"{out}?")
        return g.cast(flag, np.int64, out)
    if kind == "select":
        return g.op("Where", [g.cast(args[0], np.bool_, f"{out}?"), *args[1:]], out)
    shift = given[1]
    assert not isinstance(shift, str)
    if kind == "shl":
        return g.op("Mul", [args[0], g.number(1 << shift, np.int64)], out)
    # rsr: clear the low bits, which rounds down, and what is left divides evenly
    raised = g.op("Add", [args[0], g.number(1 << (shift - 1), np.int64)], f"{out}, raised")
    even = g.op("BitwiseAnd", [raised, g.number(-(1 << shift), np.int64)], f"{out}, even")
    return g.op("Div", [even, g.number(1 << shift, np.int64)], out)
