"""The integer network: the golden model that every exported artefact must equal, bit for bit. Plain NumPy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, ExportError
from ..files import atomic_path
from .arrivals import IntConnection, Ring
from .inputs import IntInput
from .program import IntProgram

FORMAT = 2
MAX_STEPS = (1 << 24) - 1
"""Steps between two resets: a sum over this many steps of a 32-bit output fits the 64-bit readout."""
READOUTS = ("sum", "max", "last")


@dataclass(frozen=True)
class IntPopulation:
    """A population: its connections, its program, and per neuron its tables and initial states."""

    name: str
    size: int
    model: str
    connections: tuple[IntConnection, ...]
    program: IntProgram
    tables: Mapping[str, np.ndarray]
    initial: Mapping[str, np.ndarray]

    def table(self, name: str) -> np.ndarray:
        """A table as int64 [N]."""
        return np.broadcast_to(self.tables[name], (self.size,))

    @property
    def depth(self) -> int:
        """Slots of the ring of accumulators; 1 where nothing arrives later than it is sent."""
        return 1 + max((c.reach for c in self.connections), default=0)

    def delay_tables(self, c: IntConnection) -> dict[str, np.ndarray]:
        """The delays of connection ``c`` that are looked up when a spike arrives; without a ring there are none."""
        return {kind: steps for kind, steps in c.delays.items() if kind != "uniform" and self.depth > 1}

    def start(self, state: str) -> np.ndarray:
        """A state's initial value as int64 [N]."""
        return np.broadcast_to(self.initial[state], (self.size,))

    def starts_alike(self, state: str) -> bool:
        """Whether all neurons have the same initial value."""
        return len(set(self.start(state).tolist())) == 1


@dataclass(frozen=True)
class IntegerResult:
    """``outputs``: per population [T, B, N] (uint8 spikes, int8 signed ones, int32 where the output is real), 0 beyond
    a sample's length. ``readout`` [B, classes] int64, ``classes`` [B] its first maximum. ``states``: per population
    and state [B, N] after the last step.
    """

    outputs: dict[str, np.ndarray]
    readout: np.ndarray
    classes: np.ndarray
    states: dict[str, dict[str, np.ndarray]]


@dataclass(frozen=True)
class IntegerNetwork:
    """Inputs, populations in their order within a step, and the readout (population, ``sum``, ``max`` or ``last``)."""

    dt: float
    inputs: tuple[IntInput, ...]
    populations: tuple[IntPopulation, ...]
    readout: tuple[str, str]
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sizes = self.sizes
        if self.readout[1] not in READOUTS or self.readout[0] not in {p.name for p in self.populations}:
            raise ExportError(f"integer network: unknown readout {self.readout}")
        ready = {i.name for i in self.inputs}
        for population in self.populations:
            for c in population.connections:
                if c.source not in sizes:
                    raise ExportError(f"connection {c.name!r} comes from {c.source!r}, which the network does not have")
                c.check(sizes[c.source], population.size, population.program.acc)
                if c.delay == 0 and c.source not in ready:
                    raise ExportError(
                        f"connection {c.name!r} reads this step's output of {c.source!r}, which runs after "
                        f"{population.name!r}"
                    )
            ready.add(population.name)

    def population(self, name: str) -> IntPopulation:
        return next(p for p in self.populations if p.name == name)

    @property
    def ports(self) -> dict[str, IntInput]:
        """The inputs by name."""
        return {i.name: i for i in self.inputs}

    @property
    def sizes(self) -> dict[str, int]:
        """The size of every input and population, in order."""
        return {n.name: n.size for n in (*self.inputs, *self.populations)}

    @property
    def valued(self) -> set[str]:
        """Inputs and populations that send more than 0 and 1: a weight is multiplied with what they send."""
        return {i.name for i in self.inputs if not i.binary} | {p.name for p in self.populations if p.program.signed}

    @property
    def delayed(self) -> tuple[str, ...]:
        """Inputs and populations whose output of the previous step is needed, in order."""
        read = {c.source for p in self.populations for c in p.connections if c.delay}
        return tuple(n.name for n in (*self.inputs, *self.populations) if n.name in read)

    @property
    def weight_count(self) -> int:
        return sum(c.weights.size for p in self.populations for c in p.connections)

    def stimuli(self, x: np.ndarray | Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """``x`` as the artefact receives it: [T, B, N] per input, uint8 (counts saturated at 255, events at 1) or
        int16. Samples given as real numbers are what the network was trained on, and are put into the sensor's units.

        Raises :class:`DataError` for wrong shapes, values that a port does not take, or too many steps.
        """
        given = dict(x) if isinstance(x, Mapping) else {self.inputs[0].name: x}
        if set(given) != {i.name for i in self.inputs}:
            raise DataError(
                f"the network has the inputs {', '.join(i.name for i in self.inputs)}; got {', '.join(given)}"
            )
        result: dict[str, np.ndarray] = {}
        for port in self.inputs:
            value = np.asarray(given[port.name])
            if value.ndim != 3 or value.shape[2] != port.size or 0 in value.shape:
                raise DataError(f"input {port.name!r} must be [T, B, {port.size}], got {value.shape}")
            if value.shape[0] > MAX_STEPS:
                raise DataError(f"input {port.name!r}: at most {MAX_STEPS} steps, got {value.shape[0]}")
            result[port.name] = port.numbers(value)
        if len({v.shape[:2] for v in result.values()}) > 1:
            raise DataError("all inputs must have the same number of steps and samples")
        return result

    def run(self, x: np.ndarray | Mapping[str, np.ndarray], lengths: np.ndarray | None = None) -> IntegerResult:
        """Run from the initial state; ``x`` [T, B, N] of the input (or a mapping from input names), ``lengths`` [B]
        steps of each sample.
        """
        stimuli = self.stimuli(x)
        steps, batch = next(iter(stimuli.values())).shape[:2]
        ends = checked_lengths(lengths, steps, batch)
        # Sums of 8-bit weights times 8-bit values stay below 2^31 (proved at export), so that float64 products are
        # exact.
        rings = {p.name: Ring(p.connections, p.depth, batch, p.size) for p in self.populations}
        tables = {p.name: {t: p.table(t) for t in p.tables} for p in self.populations}
        state = {p.name: {s: np.tile(p.start(s), (batch, 1)) for s in p.initial} for p in self.populations}
        now: dict[str, np.ndarray] = {n.name: np.zeros((batch, n.size)) for n in (*self.inputs, *self.populations)}
        outputs = {p.name: np.zeros((steps, batch, p.size), p.program.dtype) for p in self.populations}
        read, kind = self.population(self.readout[0]), self.readout[1]
        total = np.tile(self.readout_start(), (batch, 1))
        factors = {i.name: i.factors.astype(np.float64) for i in self.inputs}
        for k in range(steps):
            before = {n: now[n] for n in self.delayed}
            alive = (k < ends)[:, None]
            for port, value in stimuli.items():
                now[port] = value[k] * factors[port]
            for p in self.populations:
                for c in p.connections:
                    rings[p.name].send(k, c.name, (before if c.delay else now)[c.source])
                following, out = p.program.run(state[p.name], rings[p.name].take(k), tables[p.name])
                now[p.name] = out.astype(np.float64)
                state[p.name] = {s: np.where(alive, v, state[p.name][s]) for s, v in following.items()}
                outputs[p.name][k] = np.where(alive, out, 0)
                if p is read:
                    after = total + out if kind == "sum" else np.maximum(total, out) if kind == "max" else out
                    total = np.where(alive, after, total)
        return IntegerResult(outputs, total, total.argmax(1), state)

    def readout_start(self) -> np.ndarray:
        """The readout before the first step: 0, or for ``max`` the smallest output."""
        p = self.population(self.readout[0])
        return np.full(p.size, p.program.output_value.lo if self.readout[1] == "max" else 0, np.int64)

    def save(self, folder: str | Path) -> None:
        """Write ``integer.json`` and ``integer.npz`` (no pickle) into ``folder``, each atomically."""
        arrays: dict[str, np.ndarray] = {}
        populations = []
        for p in self.populations:
            for c in p.connections:
                arrays[f"weights.{c.name}"] = c.weights
                arrays |= {f"delays.{c.name}.{kind}": steps for kind, steps in c.delays.items()}
            arrays |= {f"table.{p.name}.{n}": v for n, v in p.tables.items()}
            arrays |= {f"initial.{p.name}.{n}": v for n, v in p.initial.items()}
            links = [[c.name, c.source, c.delay, list(c.delays), c.shift] for c in p.connections]
            populations.append(
                {"name": p.name, "size": p.size, "model": p.model, "connections": links, "program": p.program.to_json()}
            )
        data = {
            "format": FORMAT,
            "dt": self.dt,
            "inputs": [[i.name, i.size, i.port, i.units, i.offsets, i.shifts] for i in self.inputs],
            "populations": populations,
            "readout": list(self.readout),
            "notes": dict(self.notes),
        }
        with atomic_path(Path(folder) / "integer.npz") as path:
            np.savez_compressed(path, **arrays)  # pyright: ignore[reportArgumentType]
        with atomic_path(Path(folder) / "integer.json") as path:
            path.write_text(json.dumps(data, indent=1))

    @classmethod
    def load(cls, folder: str | Path) -> IntegerNetwork:
        """Read what :meth:`save` wrote. Raises :class:`ExportError`, naming the folder, for anything missing or
        damaged.
        """
        try:
            data = json.loads((Path(folder) / "integer.json").read_text())
            if data["format"] != FORMAT:
                raise ExportError(f"{folder}/integer.json has format {data['format']!r}; this release reads {FORMAT}")
            with np.load(Path(folder) / "integer.npz", allow_pickle=False) as file:
                arrays = {n: file[n] for n in file.files}
            populations = []
            for p in data["populations"]:
                links = tuple(
                    IntConnection(
                        n,
                        s,
                        int(d),
                        arrays[f"weights.{n}"],
                        {kind: arrays[f"delays.{n}.{kind}"] for kind in kinds},
                        int(shift),
                    )
                    for n, s, d, kinds, shift in p["connections"]
                )
                program = IntProgram.from_json(p["program"])
                tables = {t.name: arrays[f"table.{p['name']}.{t.name}"] for t in program.tables}
                initial = {s.name: arrays[f"initial.{p['name']}.{s.name}"] for s in program.states}
                populations.append(
                    IntPopulation(p["name"], int(p["size"]), p["model"], links, program, tables, initial)
                )
            inputs = tuple(IntInput(n, int(s), k, *map(tuple, of_sensor)) for n, s, k, *of_sensor in data["inputs"])
            return cls(
                float(data["dt"]), inputs, tuple(populations), (data["readout"][0], data["readout"][1]), data["notes"]
            )
        except ExportError:
            raise
        except Exception as error:  # a damaged zip, JSON or array raises one of many kinds
            raise ExportError(f"{folder} does not hold a readable integer network ({error!r})") from error


def checked_lengths(lengths: np.ndarray | None, steps: int, batch: int) -> np.ndarray:
    """``lengths`` as int64 [B], or T for all. Raises :class:`DataError` unless each is 1 to T."""
    ends = np.full(batch, steps, np.int64) if lengths is None else np.asarray(lengths, np.int64)
    if ends.shape != (batch,) or ends.min() < 1 or ends.max() > steps:
        raise DataError(f"lengths must be [{batch}] numbers from 1 to {steps}")
    return ends
