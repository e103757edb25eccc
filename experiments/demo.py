"""`make demo`: the whole road once, from spikes to a verified device program, in a few minutes on two CPU cores."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ..datasets.ridge import ridge_accuracy
from ..deploy import TARGETS
from . import digits
from .config import Config, override
from .counts import source
from .experiment import train
from .report import report_run
from .runs import runs_root
from .workflow import eval_run, export_run, verify_run

#: Targets of the demo and how many test samples each is run on; None is all.
VERIFIED: dict[str, int | None] = {"c": None, "verilog": 10}


def run_demo(run: str, settings: Sequence[str], log: Console, out: Console) -> bool:
    """Train, evaluate, export, verify and report into ``runs/RUN``; False if any spike differs.

    Progress goes to ``log``, the table to ``out``. A demo that was interrupted goes on where it was.

    Raises:
        RunError, ConfigError, DataError, ExportError: as the single commands.
    """
    began = time.perf_counter()
    folder = Path(run) if os.sep in run else runs_root() / run
    config = override(digits.defaults(), settings)
    log.print(
        "[bold]1/5[/bold] Training a recurrent spiking network on spoken digits, without the voices of the test set"
    )
    train(config, folder, log)
    floating = eval_run(folder, "test", log)
    log.print("[bold]2/5[/bold] Kernel ridge regression on the same words, for comparison")
    ridge = ridge_of(config)
    log.print("[bold]3/5[/bold] Turning the network into 8-bit integers, C and Verilog")
    targets = {name: samples for name, samples in VERIFIED.items() if name in TARGETS}
    exported = export_run(folder, list(targets), log)
    log.print("[bold]4/5[/bold] Running the C program and the Verilog core against the integer model")
    verified = verify_run(folder, list(targets), log, targets)
    log.print("[bold]5/5[/bold] Writing the report")
    report = report_run(folder, log)
    out.print(summary(floating, ridge, exported, verified, report))
    for name, target in verified["targets"].items():
        if target["differing_spikes"] is None:
            out.print(f"[yellow]{name} was not run:[/yellow] {target['reason']}")
    out.print(f"{time.perf_counter() - began:.0f} seconds in total")
    return all(t["passed"] or t["differing_spikes"] is None for t in verified["targets"].values())


def ridge_of(config: Config) -> float:
    """Test accuracy of the kernel ridge on the files of ``config``."""
    return ridge_accuracy(source(config, "train"), source(config, "test"))


def summary(
    floating: dict[str, Any], ridge: float, exported: dict[str, Any], verified: dict[str, Any], report: Path
) -> Table:
    """The table at the end of the demo."""
    table = Table(title="Ranvier demo: spoken digits, voices never heard in training", show_header=False)
    table.add_column(overflow="fold")
    table.add_column(justify="right", overflow="fold")
    table.add_row("test accuracy, float", f"{100 * floating['accuracy']:.1f} %")
    table.add_row("test accuracy, 8-bit integers", f"{100 * exported['accuracy']:.1f} %")
    table.add_row("kernel ridge on the same words", f"{100 * ridge:.1f} %")
    table.add_row("test samples", f"{floating['samples']:,}")
    table.add_row("parameters", f"{floating['params']:,}")
    table.add_row("spikes per sample", f"{floating['spikes_per_sample']:,.0f}")
    table.add_row("C program, bytes", _number(exported["bytes"]))
    table.add_row("C program, bytes of RAM", _number(exported["ram"]))
    for name, label in (("c", "C"), ("verilog", "Verilog")):
        target = verified["targets"].get(name)
        if target is None:
            continue
        said, samples = target["differing_spikes"], target["samples"]
        shown = "not run" if said is None else f"{said:,} in {samples} samples"
        colour = "yellow" if said is None else "green" if said == 0 else "red"
        table.add_row(f"differing spikes, integer model and {label}", f"[{colour}]{shown}[/{colour}]")
    table.add_row("report", str(report))
    return table


def _number(value: int | None) -> str:
    return "not known (no C compiler)" if value is None else f"{value:,}"
