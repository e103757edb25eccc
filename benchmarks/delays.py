"""Forward, and forward with backward, of connections with learned delays: Ranvier against others, in one run.

    python -m benchmarks.delays                                     # every cell, as tables: a quarter of an hour
    python -m benchmarks.delays --cell 16,500,140,256,5%,25         # one: B,T,C,H,rate,taps
    python -m benchmarks.delays --cell 16,500,140,256,5%,25,input   # the input needs a gradient too
    python -m benchmarks.delays --cell 16,100,140,256,5%,25,loop    # axonal delays in a loop
    python -m benchmarks.delays --json > delays.json

``taps`` is the number of steps a delay can have: 0 to taps - 1 feed-forward, where every pair has its own, and 1 to
taps in a loop, where every source has (``-dendritic``: every target, ``-synaptic``: every pair). Interpolation is
linear. Timed as in ``benchmarks.train_step``; docs/delays.md says more. ``mb``: peak resident memory of one forward and
backward, in a process of its own, above what that process held with input and parameters made and a smaller problem
done.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .contestants import Contestant
from .load import QUIET
from .measure import ROUNDS, measure_cell
from .train_step import fingerprint, limit_threads, machine
from .workload import Cell, make_workload

ROOT = Path(__file__).resolve().parents[1]
FORWARD = ("ranvier-numba", "dcls", "conv1d")
LOOP = (
    "ranvier-numba",
    "ranvier-numba-one-tap",
    "ranvier-numba-no-delay",
    "ranvier-numba-dendritic",
    "ranvier-numba-synaptic",
    "ranvier-eager",
    "ranvier-eager-one-tap",
    "ranvier-eager-no-delay",
    "scatter-loop",
)
NAMES = (*FORWARD, *LOOP[1:])
FORMS = ("forward", "input", "loop")
BEGIN, END = "<!-- tables of benchmarks.delays -->", "<!-- end of the tables -->"
BUDGET_S = 60.0
WARM = (16, 256, 64, 64)  # B, T, C and H of the smaller problem before memory is measured


@dataclass(frozen=True)
class DelayCell(Cell):
    """One size of the work. ``form``: ``forward``, ``input`` (the input needs a gradient too) or ``loop``."""

    taps: int = 25
    form: str = "forward"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.taps < 1 or self.form not in FORMS:
            raise ValueError(f"taps must be at least 1 and the form one of {', '.join(FORMS)}, got {self}")

    @classmethod
    def parse(cls, text: str) -> DelayCell:
        """``16,500,140,256,5%,25`` and, if need be, ``,input`` or ``,loop``. Raises :class:`ValueError`."""
        parts = [part.strip() for part in text.split(",")]
        if len(parts) not in (6, 7):
            raise ValueError(f"a cell is B,T,C,H,rate,taps[,form], such as 16,500,140,256,5%,25,input, got {text!r}")
        plain = Cell.parse(",".join(parts[:5]))
        return cls(**plain.as_dict(), taps=int(parts[5]), form=(parts[6:] or ["forward"])[0])

    @property
    def names(self) -> tuple[str, ...]:
        """Who has a place in this cell."""
        return LOOP if self.form == "loop" else FORWARD

    def __str__(self) -> str:
        return f"{super().__str__()} taps {self.taps}" + ("" if self.form == "forward" else f" {self.form}")


def grid() -> list[DelayCell]:
    """B16 T500 at three rates and two lengths, and with the gradient of the input; B64 T100; and loops."""
    wide, short = (16, 500, 140, 256), (64, 100, 140, 256)
    cells = [DelayCell(*wide, rate, taps) for rate in (0.01, 0.05, 0.3) for taps in (25, 250)]
    cells += [DelayCell(*wide, rate, taps, "input") for rate in (0.05, 0.3) for taps in (25, 250)]
    cells += [DelayCell(*short, 0.05, taps) for taps in (25, 250)]
    return cells + [DelayCell(16, 100, 140, 256, 0.05, taps, "loop") for taps in (25, 250)]


# -- memory ------------------------------------------------------------------------------------------------------------


def peak_mb(name: str, cell: DelayCell) -> float | None:
    """Peak resident memory of one step of ``name`` in this process, 10^6 bytes above what it held before; None where
    the system does not let the peak be forgotten (it needs Linux).
    """
    import ctypes
    import gc

    from .delay_peers import TASKS

    def status(key: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":"))

    b, t, c, h = (min(own, warm) for own, warm in zip((cell.B, cell.T, cell.C, cell.H), WARM, strict=True))
    TASKS[name](make_workload(replace(cell, B=b, T=t, C=c, H=h))).step()
    work = make_workload(cell)
    task = TASKS[name](work)
    del work
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        before = status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak
    except (OSError, AttributeError, StopIteration):
        return None
    task.step()
    return round(max(0, status("VmHWM") - before) / 1e6, 1)


def measure_memory(cell: DelayCell, names: list[str], threads: int) -> tuple[dict[str, float], dict[str, str]]:
    """``mb`` by name, each in a process of its own, and why some have none."""
    found: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for name in names:
        parts = (cell.B, cell.T, cell.C, cell.H, cell.rate, cell.taps, cell.form)
        command = [sys.executable, "-m", "benchmarks.delays", "--memory-of", name, "--threads", str(threads)]
        done = subprocess.run(
            [*command, "--cell", ",".join(map(str, parts))], cwd=ROOT, capture_output=True, text=True, check=False
        )
        try:
            mb = json.loads(done.stdout)
        except ValueError:
            said = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
            reasons[name] = f"memory not measured: {said}"
            continue
        if mb is None:
            reasons[name] = "memory not measured: it needs Linux"
        else:
            found[name] = mb
    return found, reasons


# -- the table ---------------------------------------------------------------------------------------------------------


def figure(ms: float | None, ours: float | None = None) -> str:
    if ms is None:
        return "–"
    shown = f"{ms:.3g}" if ms < 1000 else f"{ms:.0f}"
    ratio = 0.0 if ours is None else ms / ours
    return (
        shown
        if ours is None or ms is ours
        else f"{shown} ({ratio:.2g}×)"
        if ratio < 99.5
        else f"{shown} ({ratio:.0f}×)"
    )


def rows(entry: dict[str, Any], names: tuple[str, ...]) -> list[list[str]]:
    """For a table: name, ms forward and backward with the ratio to Ranvier in brackets, ms forward, MB."""
    ours = entry["ms"]["ranvier-numba"]
    made = []
    for name in names:
        held = entry["mb"][name]
        memory = "–" if held is None else f"{held:.0f}"
        made.append([name, figure(entry["ms"][name], ours), figure(entry["forward_ms"][name]), memory])
    return made


def cell_of(entry: dict[str, Any]) -> DelayCell:
    return DelayCell(*(entry[key] for key in ("B", "T", "C", "H", "rate", "taps", "form")))


def blocks(results: dict[str, Any]) -> list[list[str]]:
    """Lines of a table for each of the two kinds: per cell milliseconds, ratio to Ranvier and, after a comma, MB."""
    made = []
    for names, forms in ((FORWARD, ("forward", "input")), (LOOP, ("loop",))):
        cells = [entry for entry in results["cells"] if entry["form"] in forms]
        if not cells:
            continue
        lines = [["cell", *names], ["---", *["---:"] * len(names)]]
        for entry in cells:
            busy = " (*)" if (entry["others"] or 0.0) > QUIET else ""
            shown = [ms if mb == "–" else f"{ms}, {mb} MB" for _, ms, _, mb in rows(entry, names)]
            lines.append([f"{cell_of(entry)}{busy}", *shown])
        made.append(["| " + " | ".join(line) + " |" for line in lines])
    return made


def remarks(results: dict[str, Any]) -> list[str]:
    """Why what is missing is missing, each once, who got fewer rounds, and how busy others were."""
    said: dict[str, list[str]] = {}
    fewer: dict[str, list[int]] = {}
    for entry in results["cells"]:
        cell = cell_of(entry)
        for name in cell.names:
            if name in entry["reasons"]:
                said.setdefault(f"{name}: {entry['reasons'][name]}", []).append(str(cell))
            if name in entry["notes"]:
                fewer.setdefault(name, []).append(entry["rounds"][name])
    lines = [f"{text} ({'; '.join(where)})" for text, where in said.items()]
    if fewer:
        counts = ", ".join(f"{name} {min(n)}" for name, n in fewer.items())
        lines.append(f"fewest rounds, to keep within {results['budget_s']:.0f} s a cell: {counts}")
    busy = [entry["others"] for entry in results["cells"] if (entry["others"] or 0.0) > QUIET]
    if busy:
        lines.append(
            f"(*) not on a quiet machine: other processes used {min(busy):.0%} to {max(busy):.0%} of the CPU meanwhile"
        )
    return lines


def markdown(results: dict[str, Any]) -> str:
    parts = ["Forward and backward, ms (in brackets: times ranvier-numba), and peak memory:"]
    parts += ["\n".join(lines) for lines in blocks(results)]
    parts += ["\n".join(f"- {line}" for line in remarks(results))] if remarks(results) else []
    here, libraries = results["machine"], ", ".join(f"{n} {v}" for n, v in results["versions"].items())
    parts.append(f"{here['cpu']}, {here['threads']} of {here['cores']} cores; {libraries}. `{results['command']}`")
    return "\n\n".join(parts)


def write_page(path: Path, results: dict[str, Any]) -> None:
    """Replace what stands between the two marks of a page. Exits with a message where they are not there."""
    from ranvier.files import atomic_path

    before, begin, rest = path.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{path} has no place for the tables: a line {BEGIN} and a line {END}")
    with atomic_path(path) as beside:
        beside.write_text(f"{before}{BEGIN}\n{markdown(results)}\n{END}{after}", "utf-8")


# -- the command -------------------------------------------------------------------------------------------------------


def parse_options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.delays", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cell", action="append", metavar="B,T,C,H,RATE,TAPS[,FORM]", help="only this; may be repeated"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--page", type=Path, help="put the tables into this page too, between its two marks")
    parser.add_argument("--peers", nargs="+", default=list(NAMES), choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="by default every core")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="samples of each, of which the median is taken")
    parser.add_argument("--budget", type=float, default=BUDGET_S, help="seconds per cell, roughly, without memory (60)")
    parser.add_argument("--no-memory", action="store_true", help="measure times only")
    parser.add_argument("--memory-of", choices=NAMES, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if min(options.threads, options.rounds) < 1 or options.budget <= 0:
        parser.error("--threads and --rounds must be at least 1, --budget above 0")
    try:
        options.cells = [DelayCell.parse(text) for text in options.cell or ()] or grid()
    except ValueError as error:
        parser.error(str(error))
    return options


def measure(cell: DelayCell, options: argparse.Namespace) -> dict[str, Any]:
    """The entry of the JSON."""
    from .delay_peers import TaskContestant

    contestants: dict[str, Contestant] = {name: TaskContestant(name) for name in NAMES}
    asked = [name for name in cell.names if name in options.peers]
    entry = measure_cell(cell, contestants, asked, options.budget, options.rounds)
    for name in NAMES:
        if name not in cell.names:
            entry["reasons"][name] = "has no place in a loop" if cell.form == "loop" else "is a loop"
    mb: dict[str, float | None] = dict.fromkeys(NAMES)
    if not options.no_memory:
        found, reasons = measure_memory(cell, [n for n in asked if entry["ms"][n] is not None], options.threads)
        mb.update(found)
        entry["reasons"].update(reasons)
    return {**entry, "mb": mb}


def main(arguments: list[str] | None = None) -> int:
    options = parse_options(arguments)
    limit_threads(options.threads)

    import torch
    from rich.console import Console
    from rich.table import Table

    torch.set_num_threads(options.threads)
    if options.memory_of:
        print(json.dumps(peak_mb(options.memory_of, options.cells[0])))
        return 0

    from .delay_peers import versions

    progress = Console(stderr=True)
    results: dict[str, Any] = {
        "machine": machine(options.threads),
        "versions": versions(),
        "fingerprint": fingerprint(),
        "budget_s": options.budget,
        "command": "python -m benchmarks.delays " + " ".join(sys.argv[1:] if arguments is None else arguments),
        "cells": [],
    }
    for number, cell in enumerate(options.cells, 1):
        progress.print(f"{number} of {len(options.cells)}: {cell}", highlight=False)
        results["cells"].append(measure(cell, options))
    if options.page:
        write_page(options.page, results)
    if options.json:
        print(json.dumps(results, indent=1))
        return 0
    console = Console()
    for entry in results["cells"]:
        table = Table(title=f"{cell_of(entry)}, median ms", title_justify="left")
        for name in ("", "forward + backward", "forward", "MB"):
            table.add_column(name, justify="right" if name else "left")
        for row in rows(entry, cell_of(entry).names):
            table.add_row(*row)
        console.print(table)
    for line in remarks(results):
        console.print(line, highlight=False, markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
