"""Forward, and forward with backward, of one recurrent layer: Ranvier against other libraries, in one run.

    python -m benchmarks.train_step                            # the quick grid, as a table
    python -m benchmarks.train_step --cell 32,250,140,256,5%   # one cell, in under a minute
    python -m benchmarks.train_step --full --json > grid.json  # the whole grid: some hours; goes on where it stopped

Everyone gets the same input and weights, hidden spikes tuned to the rate of the cell, and is measured in turns: in
every round each once, and the median over rounds counts. docs/performance.md says more, and how to install the peers
that the project does not depend on.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

from .contestants import JAX_PYTHON, Contestant, SpyxContestant, make_contestants
from .load import QUIET
from .measure import ROUNDS, measure_cell
from .workload import Cell

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "runs" / "benchmarks" / "train_step.json"
NAMES = (
    "ranvier-numba",
    "torch-loop",
    "torch-rnn",
    "torch-lstm",
    "norse",
    "snntorch",
    "spikingjelly",
    "spyx",
    "matmul-floor",
)
BEGIN, END = "<!-- table of benchmarks.train_step -->", "<!-- end of the table -->"
NOT_QUIET = "not to be trusted: other processes were using the CPU; the same command measures these cells again"
OURS, FLOOR = "ranvier-numba", "matmul-floor"
CHANNELS = 140
BUDGET_S, GRID_BUDGET_S = 40.0, 120.0


def quick_grid() -> list[Cell]:
    """A cross through B32 T250 H256 5 %, and streaming (B = 1) of a large layer."""
    b, t, h, rate = 32, 250, 256, 0.05
    cells = [Cell(b, t, CHANNELS, h, rate)]
    cells += [Cell(v, t, CHANNELS, h, rate) for v in (1, 128)]
    cells += [Cell(b, v, CHANNELS, h, rate) for v in (100, 1000)]
    cells += [Cell(b, t, CHANNELS, v, rate) for v in (128, 512, 1024)]
    cells += [Cell(b, t, CHANNELS, h, v) for v in (0.01, 0.2)]
    return [*cells, Cell(1, t, CHANNELS, 1024, rate)]


def full_grid() -> list[Cell]:
    every = itertools.product((1, 32, 128), (100, 250, 1000), (128, 256, 512, 1024), (0.01, 0.05, 0.2))
    return [Cell(b, t, CHANNELS, h, rate) for b, t, h, rate in every]


# -- where and with what -----------------------------------------------------------------------------------------------


def machine(threads: int) -> dict[str, Any]:
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {"cpu": model, "cores": os.cpu_count(), "threads": threads, "system": platform.platform()}


def fingerprint() -> str:
    """Of everything that is measured with: cells measured under another one are not taken over."""
    digest = hashlib.sha256()
    for folder in ("neurons", "networks", "benchmarks"):
        for path in sorted((ROOT / folder).glob("**/*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def limit_threads(threads: int) -> None:
    """Before torch and numba are imported. Fewer threads than cores also pins the processes, since XLA takes what it
    finds.
    """
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = str(threads)
    if hasattr(os, "sched_setaffinity"):
        free = sorted(os.sched_getaffinity(0))
        if threads < len(free):
            os.sched_setaffinity(0, free[:threads])


# -- files -------------------------------------------------------------------------------------------------------------


def read_results(path: Path, about: dict[str, Any]) -> dict[str, Any]:
    """Cells measured before under the same conditions and on a quiet machine; otherwise none."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {**about, "cells": []}
    same = all(found.get(key) == about[key] for key in ("fingerprint", "machine", "budget_s"))
    if not same or not isinstance(found.get("cells"), list):
        return {**about, "cells": []}
    return {**found, "cells": [entry for entry in found["cells"] if (entry.get("others") or 0.0) <= QUIET]}


def write_results(path: Path, results: dict[str, Any]) -> None:
    from ranvier.files import atomic_path

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as beside:
        beside.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


def same_cell(entry: dict[str, Any], cell: Cell) -> bool:
    return all(entry[key] == value for key, value in cell.as_dict().items())


# -- the table ---------------------------------------------------------------------------------------------------------


def losers(entry: dict[str, Any], kind: str = "ms") -> list[str]:
    """Peers that are faster than Ranvier in this cell. The floor is no peer."""
    ours = entry[kind][OURS]
    if ours is None:
        return []
    return [n for n, ms in entry[kind].items() if n not in (OURS, FLOOR) and ms is not None and ms < ours]


def figure(ms: float | None, ours: float | None) -> str:
    if ms is None:
        return "–"
    shown = f"{ms:.3g}" if ms < 100 else f"{ms:.0f}"
    return shown if ours is None or ms is ours else f"{shown} ({ms / ours:.2g}×)"


def rows(results: dict[str, Any], kind: str) -> list[list[str]]:
    """For a table: one row per cell, with milliseconds and, in brackets, the ratio to Ranvier."""
    made = []
    for entry in results["cells"]:
        ours, lost = entry[kind][OURS], losers(entry, kind)
        label = str(Cell(*(entry[key] for key in ("B", "T", "C", "H", "rate"))))
        cells = [figure(entry[kind][name], ours) + (" !" if name in lost else "") for name in NAMES]
        made.append([label + (" LOST" if lost else ""), *cells])
    return made


def remarks(results: dict[str, Any]) -> list[str]:
    """Why what is missing is missing, each once."""
    said: dict[str, list[str]] = {}
    for entry in results["cells"]:
        label = str(Cell(*(entry[key] for key in ("B", "T", "C", "H", "rate"))))
        for name, text in (*entry["reasons"].items(), *entry["notes"].items()):
            said.setdefault(f"{name}: {text}", []).append(label)
        if (busy := entry.get("others") or 0.0) > QUIET:
            said.setdefault(NOT_QUIET, []).append(f"{label}, {busy:.0%}")
    return [f"{text} ({'; '.join(where)})" for text, where in said.items()]


def markdown(results: dict[str, Any]) -> str:
    """Both tables, what is missing in them, and where and with what they were measured."""
    parts = []
    for kind, title in (("ms", "Forward and backward"), ("forward_ms", "Forward alone")):
        lines = [["cell", *NAMES], ["---", *["---:"] * len(NAMES)]]
        lines += [[f"**{c}**" if c.endswith(("!", "LOST")) else c for c in row] for row in rows(results, kind)]
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        parts.append(f"{title}, ms (in brackets: times {OURS}):\n\n{table}")
    lost = sum(bool(losers(entry)) for entry in results["cells"])
    here = results["machine"]
    parts.append(
        f"Of {len(results['cells'])} cells {lost} are lost: a peer, marked `!`, is faster there, forward and backward."
    )
    parts += ["\n".join(f"- {line}" for line in remarks(results))] if remarks(results) else []
    libraries = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    parts.append(f"{here['cpu']}, {here['threads']} of {here['cores']} cores; {libraries}. `{results['command']}`")
    return "\n\n".join(parts)


def write_page(path: Path, results: dict[str, Any]) -> None:
    """Replace what stands between the two marks of a page. Exits with a message where they are not there."""
    text = path.read_text("utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{path} has no place for the table: a line {BEGIN} and a line {END}")
    path.write_text(f"{before}{BEGIN}\n{markdown(results)}\n{END}{after}", "utf-8")


def print_tables(results: dict[str, Any], console: Any) -> None:
    from rich.table import Table

    if console.width < 160:
        print_cells(results, console)
    else:
        for kind, title in (("ms", "forward + backward"), ("forward_ms", "forward")):
            table = Table(title=f"{title}, median ms (ratio to {OURS})", title_justify="left")
            table.add_column("cell", no_wrap=True)
            for name in NAMES:
                table.add_column(name, justify="right", no_wrap=True)
            for row in rows(results, kind):
                table.add_row(*row, style="red" if row[0].endswith("LOST") else None)
            console.print(table)
    console.print("LOST: a peer, marked !, is faster than Ranvier. matmul-floor is the products alone, and no peer.")
    for line in remarks(results):
        console.print(f"  {line}", highlight=False, markup=False)
    console.print(f"  {results['machine']}, {results['versions']}", highlight=False, markup=False)


def print_cells(results: dict[str, Any], console: Any) -> None:
    """One table per cell, for narrow terminals."""
    from rich.table import Table

    for entry, row in zip(results["cells"], rows(results, "ms"), strict=True):
        table = Table(title=f"{row[0]}: median ms (ratio to {OURS})", title_justify="left")
        for name in ("", "forward + backward", "forward", "hidden rate", "rounds"):
            table.add_column(name, justify="right" if name else "left", no_wrap=True)
        forward = rows({"cells": [entry]}, "forward_ms")[0]
        for name, step, first in zip(NAMES, row[1:], forward[1:], strict=True):
            rate = entry["hidden_rate"].get(name)
            shown = "" if rate is None else f"{rate:.2%}"
            style = "red" if step.endswith("!") else None
            table.add_row(name, step, first, shown, str(entry["rounds"].get(name, "")), style=style)
        console.print(table)


# -- the command -------------------------------------------------------------------------------------------------------


def parse_options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.train_step",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cell", action="append", metavar="B,T,C,H,RATE", help="only this cell, anew; may be repeated")
    parser.add_argument("--full", action="store_true", help="the whole grid")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--page", type=Path, help="put the tables into this page too, between its two marks")
    parser.add_argument("--peers", nargs="+", default=list(NAMES), choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="by default every core")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="samples of each, of which the median is taken")
    parser.add_argument("--budget", type=float, help="seconds per cell, roughly (40; in a grid 120)")
    parser.add_argument(
        "--out", type=Path, help=f"file of results, continued where it stopped ({OUT.relative_to(ROOT)})"
    )
    parser.add_argument("--fresh", action="store_true", help="measure again what that file has")
    parser.add_argument("--jax-python", type=Path, default=JAX_PYTHON, help="interpreter of the environment with Spyx")
    options = parser.parse_args(arguments)
    options.budget = options.budget if options.budget is not None else BUDGET_S if options.cell else GRID_BUDGET_S
    if min(options.threads, options.rounds) < 1 or options.budget <= 0:
        parser.error("--threads and --rounds must be at least 1, --budget above 0")
    try:
        options.cells = [Cell.parse(text) for text in options.cell or ()]
    except ValueError as error:
        parser.error(str(error))
    return options


def main(arguments: list[str] | None = None) -> int:
    started = time.perf_counter()
    options = parse_options(arguments)
    limit_threads(options.threads)
    spyx = SpyxContestant(options.jax_python, options.threads)
    if "spyx" in options.peers:
        spyx.start()

    import torch
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from .peers import versions

    torch.set_num_threads(options.threads)
    about = {
        "machine": machine(options.threads),
        "versions": versions(),
        "fingerprint": fingerprint(),
        "budget_s": options.budget,
        "command": "python -m benchmarks.train_step " + " ".join(sys.argv[1:] if arguments is None else arguments),
    }
    contestants: dict[str, Contestant] = {**make_contestants(options.jax_python, options.threads), "spyx": spyx}
    contestants = {name: contestants[name] for name in NAMES}
    cells = options.cells or (full_grid() if options.full else quick_grid())
    out = options.out or (None if options.cells else OUT)
    results = read_results(out, about) if out and not options.fresh and not options.cells else {**about, "cells": []}
    asked = [name for name in NAMES if name in options.peers]
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        auto_refresh=False,  # its thread would take turns with what is measured
    )

    def say(text: str) -> None:
        progress.update(task, description=text, refresh=True)

    with progress:
        task = progress.add_task("", total=len(cells))
        for cell in cells:
            if not any(same_cell(entry, cell) for entry in results["cells"]):
                entry = measure_cell(cell, contestants, asked, options.budget, options.rounds, say, started)
                results["cells"].append(entry)
                results["versions"].update(spyx.versions)
                if out:
                    write_results(out, results)
            progress.advance(task)
            started = time.perf_counter()
    spyx.close()
    results = {**results, "cells": [e for cell in cells for e in results["cells"] if same_cell(e, cell)]}
    if options.page:
        write_page(options.page, results)
    if options.json:
        print(json.dumps(results, indent=1))
    else:
        print_tables(results, Console())
    return 0


if __name__ == "__main__":
    sys.exit(main())
