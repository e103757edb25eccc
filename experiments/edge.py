"""A run's network on edge devices, as a table: accuracy, what differs from the integer model, latency, memory."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from ..deploy import IntegerNetwork, c_latency
from ..files import atomic_path
from ..networks import load_network
from .batch import Split
from .config import load_config
from .raw_samples import raw
from .runs import find_run, write_json
from .workflow import INTEGER_FOLDER, artefact_name, export_run, open_split, verify_run

PAGE, RESULTS_FILE = "edge.md", "edge.json"
TIMED_WINDOWS, TIMED_CALLS = 16, 10
HEAD = (
    "", "accuracy", "macro-F1", "compared", "differing", "latency, a window", "program, bytes", "RAM, bytes",
    "model, bytes",
)  # fmt: skip


def edge_run(
    run: str | Path, targets: Sequence[str], console: Console, lsb: Sequence[float] = (), verilog: int | None = None
) -> dict[str, Any]:
    """Export a run, compare every target with the integer model on its whole test set (Verilog on a part of it),
    measure, and write ``edge.md`` and ``edge.json`` into its folder.

    Args:
        lsb: the device takes the sensor's own numbers, see ``export_run``.
        verilog: so many test samples there; by default 50.

    Returns:
        What ``edge.json`` holds: ``run``, ``samples`` (test), ``steps`` and ``dt`` of a window, ``lsb``, ``cpu``,
        ``weight_bits``, ``params``, ``spikes_per_sample``, ``passed``, ``differing_spikes``, ``cortex_m4`` (see
        ``c_latency``), ``float_onnx`` (see ``float_agreement``) and ``rows``: each with ``target``, ``accuracy``,
        ``macro_f1``, ``samples`` (compared), ``differing`` (spikes, readouts, states and classes together; of float
        models spikes), ``latency_ms``, ``instructions`` or ``clocks`` of a window, ``program``, ``ram`` and ``model``
        (bytes); null where it is not measured or has none.

    Raises:
        As ``export_run`` and ``verify_run``.
    """
    folder = find_run(run)
    exported = export_run(folder, targets, console, lsb=lsb)
    split = open_split(folder)
    verified = verify_run(folder, targets, console, {"verilog": verilog})
    ways = verified["targets"]
    rows = [_float_row(folder, exported, split)]
    measured: dict[str, Any] = {}
    if "c" in ways:
        rows_c, measured["cortex_m4"] = _c_rows(folder, exported, ways["c"], raw(split, lsb) if lsb else split)
        rows += rows_c
    if "onnx" in ways:
        rows += _onnx_rows(exported, ways["onnx"], split.steps)
        measured["float_onnx"] = ways["onnx"]["figures"].get("float")
    if "verilog" in ways:
        rows.append(_verilog_row(folder, exported, ways["verilog"], split.steps))
    found = {
        "run": folder.resolve().name,
        "samples": len(split),
        "steps": split.steps,
        "dt": load_config(folder).data.dt,
        "lsb": list(lsb),
        "cpu": _cpu(),
        "weight_bits": exported["weight_bits"],
        "params": exported["params"],
        "spikes_per_sample": exported["spikes_per_sample"],
        "passed": verified["passed"] and not measured.get("cortex_m4", {}).get("differing_steps"),
        "differing_spikes": verified["differing_spikes"],
        "reason": verified["reason"],
        **measured,
        "rows": rows,
    }
    write_json(folder / RESULTS_FILE, found)
    with atomic_path(folder / PAGE) as path:
        path.write_text(page(found), "utf-8")
    return found


def _row(target: str, **values: Any) -> dict[str, Any]:
    names = (
        "accuracy", "macro_f1", "samples", "differing", "latency_ms", "instructions", "clocks", "program", "ram",
        "model",
    )  # fmt: skip
    return {"target": target, **dict.fromkeys(names), **values}


def _integer(exported: dict[str, Any], way: dict[str, Any]) -> dict[str, Any]:
    """Of a target that does exactly as the integer model; nothing is said of one that was not run or differs."""
    kinds = ("spikes", "readouts", "states", "classes")
    counts = [way[f"differing_{kind}"] for kind in kinds]
    differing = None if None in counts else sum(counts)
    same = {k: exported[k] for k in ("accuracy", "macro_f1")} if differing == 0 else {}
    return {"samples": way["samples"], "differing": differing, **same}


def _float_row(folder: Path, exported: dict[str, Any], split: Split) -> dict[str, Any]:
    net, x = load_network(folder).eval(), split.batch(np.arange(1)).counts
    times = []
    with torch.no_grad():
        for _ in range(TIMED_CALLS):
            began = time.perf_counter()
            net(x)
            times.append(time.perf_counter() - began)
    return _row(
        "PyTorch, float32", accuracy=exported["float_accuracy"], macro_f1=exported["float_macro_f1"],
        latency_ms=1e3 * min(times), model=exported["float_constants"],
    )  # fmt: skip


def _c_rows(
    folder: Path, exported: dict[str, Any], way: dict[str, Any], split: Split
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    inet = IntegerNetwork.load(folder / INTEGER_FOLDER)
    some = np.unique(np.linspace(0, len(split) - 1, TIMED_WINDOWS).astype(int))
    cost = c_latency(inet, split.batch(some).counts.numpy(), artefact_name(folder))
    us, arm, steps = cost["us_per_step"], cost["cortex_m4"], split.steps
    rows = [
        _row(
            "C99, this CPU", **_integer(exported, way), program=way["bytes"], ram=way["ram"],
            model=exported["constants"], latency_ms=None if us is None else us * steps / 1000,
        ),
        _row(
            "C99, Cortex-M4", program=way["figures"].get("bytes_cortex_m4"), model=exported["constants"],
        ),
    ]  # fmt: skip
    if "reason" not in arm:
        same = {k: exported[k] for k in ("accuracy", "macro_f1")} if arm["differing_steps"] == 0 else {}
        rows[1] |= {
            "samples": len(some),
            "differing": arm["differing_steps"],
            "instructions": arm["instructions_per_step"] * steps,
            "ram": arm["ram"] + arm["stack"],
            **same,
        }
    return rows, arm


def _onnx_rows(exported: dict[str, Any], way: dict[str, Any], steps: int) -> list[dict[str, Any]]:
    figures, near = way["figures"], way["figures"].get("float", {})
    exact = _integer(exported, way)
    close = {
        "accuracy": near.get("accuracy"), "macro_f1": near.get("macro_f1"),
        "samples": near.get("samples"), "differing": near.get("differing_spikes"),
    }  # fmt: skip

    def pair(name: str, values: dict[str, Any], cost: dict[str, Any]) -> list[dict[str, Any]]:
        ms = cost.get("ms_per_step")
        return [
            _row(f"ONNX, {name}, window", **values, latency_ms=cost.get("ms_per_window"), model=cost.get("bytes")),
            _row(
                f"ONNX, {name}, step", **values, latency_ms=None if ms is None else ms * steps,
                model=cost.get("bytes_step"),
            ),
        ]  # fmt: skip

    return pair("integer", exact, figures | {"bytes": way["bytes"]}) + pair("float32", close, near)


def _verilog_row(folder: Path, exported: dict[str, Any], way: dict[str, Any], steps: int) -> dict[str, Any]:
    words = [path.read_text().split() for path in (folder / "verilog").glob("*.hex")]
    clocks = way["figures"].get("clocks_per_step")
    return _row(
        "SystemVerilog", **_integer(exported, way), clocks=None if clocks is None else clocks * steps,
        model=sum(len(w) for lines in words for w in lines) // 2,
    )  # fmt: skip


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row of the table as text."""

    def whole(value: float | None) -> str:
        return "" if value is None else f"{value:,.0f}"

    cost = ""
    if row["latency_ms"] is not None:
        cost = f"{row['latency_ms']:.2f} ms"
    elif row["instructions"] is not None:
        cost = f"{row['instructions'] / 1e6:.2f} M instructions"
    elif row["clocks"] is not None:
        cost = f"{row['clocks'] / 1e6:.2f} M clocks"
    return (
        row["target"],
        *("" if row[k] is None else f"{row[k]:.3f}" for k in ("accuracy", "macro_f1")),
        *(whole(row[k]) for k in ("samples", "differing")),
        cost,
        *(whole(row[k]) for k in ("program", "ram", "model")),
    )


def page(found: dict[str, Any]) -> str:
    """``edge.md``: the table, and what its figures are."""
    given = f" --sensor {','.join(f'{v:g}' for v in found['lsb'])}" if found["lsb"] else ""
    takes = (
        "the sensor's own 16-bit numbers; the normalisation is in weights and biases"
        if found["lsb"]
        else "what training saw, normalised"
    )
    lines = [
        f"# {found['run']} on devices",
        "",
        f"    ranvier export {found['run']} --table{given}",
        "",
        f"{found['params']:,} parameters, {found['weight_bits']}-bit weights, {found['spikes_per_sample']:,.0f} spikes "
        f"a window of {found['steps']} steps of {found['dt']:g} ms. Its input is {takes}. Raw figures: edge.json.",
        "",
        "| " + " | ".join(HEAD) + " |",
        "|" + "---|" * len(HEAD),
        *("| " + " | ".join(cells(row)) + " |" for row in found["rows"]),
        "",
        f"- Accuracy and macro-F1 are over all {found['samples']:,} test windows. *Compared*: windows on which the "
        "target was run and compared with the integer model (float32: with PyTorch). *Differing*: spikes, readouts, "
        "states and classes together; float32: spikes; Cortex-M4: steps.",
        f"- Milliseconds are of one thread of {found['cpu']}, the best of many runs; single-step models are called "
        f"{found['steps']} times. Model bytes are all constants (C), the file (ONNX), the memories (Verilog).",
    ]
    arm = found.get("cortex_m4")
    if arm and "reason" not in arm:
        rate = arm["instructions_per_step"] * 1000 / found["dt"] / 1e6
        lines.append(
            "- Cortex-M4: instructions counted by QEMU, `-Os`; cycles depend on the chip. To keep up with its input it "
            f"needs {rate:.2f} million instructions a second; the longest step takes "
            f"{arm['instructions_slowest_step']:,}. RAM is state, input, output and {arm['stack']} bytes of stack."
        )
    elif arm:
        lines.append(f"- Cortex-M4 was not run: {arm['reason']}.")
    near = found.get("float_onnx")
    if near:
        lines.append(
            f"- Float ONNX: {near['differing_spikes']} of {near['spikes']:,} spikes differ from PyTorch's (flip rate "
            f"{near['flip_rate']:.1e}; in {100 * near['same_spikes']:.1f} % of windows none); real outputs agree to "
            f"{near['error']:.0e} before a first flip; same class in {100 * near['same_class']:.1f} %."
            + " Its input is what the sensor's numbers stand for, not rounded as in training."
            * bool(found["lsb"])
        )
    if found["reason"]:
        lines.append(f"- {found['reason']}")
    return "\n".join([*lines, ""])
