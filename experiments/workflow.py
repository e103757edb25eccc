"""What the command line does with a run folder after training: evaluate, export, verify.

Everything here reads graph.json, model.safetensors and config.yaml only; the code that defined or trained the network
is not needed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from ..deploy import (
    TARGETS,
    IntegerNetwork,
    IntegerResult,
    export_float_onnx,
    float_agreement,
    float_footprint,
    footprint,
    quantize,
    verify,
    without_unread,
)
from ..errors import ConfigError
from ..networks import Network, load_network
from ..networks.files import WEIGHTS_FILE
from .batch import Split
from .callbacks import progress
from .config import load_config
from .data import load_test, load_training
from .evaluation import Evaluation, evaluate
from .raw_samples import raw
from .runs import METRICS_FILE, find_run, read_json, write_json

EXPORT_FILE = "export.json"
VERIFY_FILE = "verification.json"
INTEGER_FOLDER = "integer"
CALIBRATION_SAMPLES = 256
SHIPPED_VECTORS = 2
VERILOG_SAMPLES = 50
GOLDEN_BATCH = 128


def open_split(folder: Path, which: str = "test") -> Split:
    """The ``test`` or ``validation`` samples of a run, from its settings.

    Raises :class:`ConfigError` for another name or a run without validation.
    """
    config = load_config(folder)
    if which == "test":
        return load_test(config)
    if which != "validation":
        raise ConfigError(f"split must be test or validation, got {which!r}")
    valid = load_training(config)[1]
    if valid is None:
        raise ConfigError(f"{folder} was trained without validation speakers (data.validation_speakers=0)")
    return valid


def count_parameters(folder: Path, net: Network) -> int:
    """Learned values: as counted in training, or, for an unfinished run, those of the connections."""
    path = folder / METRICS_FILE
    return int(read_json(path)["params"]) if path.is_file() else net.count_parameters()


def eval_run(run: str | Path, which: str, console: Console) -> dict[str, Any]:
    """Evaluate a run's network on one of its splits.

    Returns:
        ``run``, ``split``, ``samples``, ``accuracy``, ``params``, ``spikes_per_sample`` (all spiking populations),
        ``spikes_per_population``.
    """
    folder = find_run(run)
    net = load_network(folder)
    found = evaluate(net, open_split(folder, which), console)
    return {
        "run": str(folder),
        "split": which,
        "samples": len(found.labels),
        "accuracy": found.accuracy,
        "params": count_parameters(folder, net),
        "spikes_per_sample": found.spikes_per_sample,
        "spikes_per_population": {n: float(s.mean()) for n, s in found.spikes.items()},
    }


def quantized(
    folder: Path, net: Network, console: Console, weight_bits: int = 0, lsb: Sequence[float] = ()
) -> IntegerNetwork:
    """The integer form of a run's network, calibrated on training samples; ``weight_bits``: by default those that it
    was trained for, or 8; ``lsb``: it takes the sensor's own numbers, see :func:`export_run`.

    Raises:
        ExportError: naming what has no integer form. ConfigError: ``lsb`` does not fit.
    """
    config = load_config(folder)
    training, _ = load_training(config)
    sensors = {}
    if lsb:
        training = raw(training, lsb)
        sensors = {net.inputs[0]: training.sensor}
    rows = np.random.default_rng(0).permutation(len(training))[:CALIBRATION_SAMPLES]
    batch = training.batch(np.sort(rows))
    with console.status("Quantising"):
        lengths = None if batch.lengths is None else batch.lengths.numpy()
        bits = weight_bits or config.compression.bits or 8
        inet = quantize(net, batch.counts, lengths, weight_bits=bits, sensors=sensors)
    return without_unread(inet) if config.compression.prune_neurons else inet


def golden_run(
    inet: IntegerNetwork, split: Split, console: Console
) -> tuple[np.ndarray, np.ndarray | None, IntegerResult]:
    """The integer model on all of ``split``: the counts [T, N, C], the lengths, and what came out."""
    parts: list[IntegerResult] = []
    counts, lengths = [], []
    with progress(console) as bar:
        task = bar.add_task("Integer model", total=len(split), note="")
        for start in range(0, len(split), GOLDEN_BATCH):
            rows = np.arange(start, min(start + GOLDEN_BATCH, len(split)))
            batch = split.batch(rows)
            counts.append(batch.counts.numpy())
            ends = np.full(len(rows), len(batch.counts)) if batch.lengths is None else batch.lengths.numpy()
            lengths.append(ends)
            parts.append(inet.run(counts[-1], ends))
            bar.advance(task, len(rows))
    outputs = {n: np.concatenate([p.outputs[n] for p in parts], 1) for n in parts[0].outputs}
    states = {
        n: {s: np.concatenate([p.states[n][s] for p in parts]) for s in own} for n, own in parts[0].states.items()
    }
    joined = IntegerResult(
        outputs, np.concatenate([p.readout for p in parts]), np.concatenate([p.classes for p in parts]), states
    )
    return np.concatenate(counts, 1), np.concatenate(lengths) if split.padded else None, joined


def _targets(names: Sequence[str]) -> list[str]:
    for name in names:
        if name not in TARGETS:
            close = difflib.get_close_matches(name, TARGETS, 1, 0.4)
            raise ConfigError(
                f"there is no target {name!r}; "
                + (f"did you mean {close[0]}?" if close else f"there are {', '.join(TARGETS)}")
            )
    return list(dict.fromkeys(names))


def artefact_name(folder: Path) -> str:
    """The run's name as an identifier of C and Verilog."""
    name = re.sub(r"\W+", "_", folder.resolve().name, flags=re.ASCII).strip("_").lower()
    return name if name[:1].isalpha() else f"net_{name}"


def export_run(
    run: str | Path, targets: Sequence[str], console: Console, out: Path | None = None, lsb: Sequence[float] = ()
) -> dict[str, Any]:
    """Quantise a run's network and write it for each target into ``RUN/TARGET`` (or ``out/TARGET``).

    Args:
        lsb: for a run on sensor recordings: what one of the sensor's numbers is in their unit, one number or one per
            axis. The device then takes the sensor's own 16-bit numbers, and the normalisation is in weights and biases.
            By default it takes normalised numbers.

    Returns:
        What `ranvier export --json` prints and ``export.json`` keeps: ``run``, ``samples`` (test), ``accuracy`` and
        ``macro_f1`` of the integer model on them, ``float_accuracy``, ``float_macro_f1``, ``same_class`` (share of
        samples with the same answer),
        ``params``, ``spikes_per_sample`` of the integer model, ``float_spikes_per_sample``, ``spikes_per_population``
        and ``spike_ratio`` (integer / float) by population, ``bytes`` and ``ram`` of the C program (None where it was
        not exported or there is no compiler), ``weight_bits``, ``constants`` (bytes of weights, delays, scales, biases
        and other tables as C stores them), ``float_constants`` (4 bytes for each of the float network's), ``lsb``,
        ``files`` by target.

    Raises:
        ConfigError: an unknown target, naming the nearest; or ``lsb`` does not fit.
        ExportError: the network has no integer form; nothing is written.
    """
    names, folder = _targets(targets), find_run(run)
    net, split = load_network(folder), open_split(folder)
    path = folder / EXPORT_FILE
    if out is None and path.is_file() and list(read_json(path).get("lsb", ())) != list(lsb):
        # what is there takes other numbers, and must not be taken for this network's
        names += [n for n in TARGETS if n not in names and (folder / n).is_dir()]
    inet = quantized(folder, net, console, lsb=lsb)
    counts, lengths, golden = golden_run(inet, raw(split, lsb) if lsb else split, console)
    found = evaluate(net, split, console)
    exact = Evaluation(split.labels, golden.classes, golden.readout, split.classes)
    inet.save(folder / INTEGER_FOLDER)
    files: dict[str, list[str]] = {}
    sizes: dict[str, int | None] = {"bytes": None, "ram": None}
    few = counts[:, :SHIPPED_VECTORS]
    for name in names:
        place = (out or folder) / name
        with console.status(f"Writing {name}"):
            files[name] = [str(p) for p in TARGETS[name].export(inet, place, artefact_name(folder), few)]
            if name == "onnx":
                files[name] += [str(p) for p in export_float_onnx(net, place, artefact_name(folder))]
            if name == "c":
                short = verify(
                    TARGETS[name],
                    inet,
                    place,
                    artefact_name(folder),
                    few,
                    None if lengths is None else lengths[:SHIPPED_VECTORS],
                )
                sizes = {"bytes": short.bytes, "ram": short.ram}
    spikes = {
        p.name: np.count_nonzero(golden.outputs[p.name]) / len(split) for p in inet.populations if p.program.spikes
    }
    values = {
        "run": str(folder),
        "samples": len(split),
        "accuracy": exact.accuracy,
        "macro_f1": exact.macro_f1,
        "float_accuracy": found.accuracy,
        "float_macro_f1": found.macro_f1,
        "same_class": float((golden.classes == found.predictions).mean()),
        "params": count_parameters(folder, net),
        "spikes_per_sample": sum(spikes.values()),
        "float_spikes_per_sample": found.spikes_per_sample,
        "spikes_per_population": spikes,
        "spike_ratio": {n: spikes[n] / max(1e-9, float(found.spikes[n].mean())) for n in spikes},
        **sizes,
        "weight_bits": inet.notes.get("weight_bits", 8),
        "constants": footprint(inet).total,
        "float_constants": float_footprint(net).total,
        "lsb": list(lsb),
        "files": files,
    }
    write_json(path, values)
    return values


def verify_run(
    run: str | Path, targets: Sequence[str], console: Console, samples: int | Mapping[str, int | None] | None = None
) -> dict[str, Any]:
    """Run what was exported (exporting it first where it was not) and compare every output, readout and state with
    the integer model.

    Args:
        samples: how many test samples, for all targets or by target; by default all of them, and 50 in
            Verilog.

    Returns:
        What `ranvier verify --json` prints and ``verification.json`` keeps: ``run``, ``samples`` (the most that a
        target was run on), ``accuracy`` and ``spikes_per_sample`` of the integer model on the test set, ``params``,
        ``differing_spikes`` (all targets together; None, with ``reason``, where a target was not run), ``bytes``,
        ``ram``, ``passed``, and ``targets``: by target ``samples``, ``differing_spikes``, ``differing_readouts``,
        ``differing_states``, ``differing_classes``, ``reason``, ``bytes``, ``ram``, ``figures``, ``passed``.

    Raises:
        ConfigError: an unknown target.
        ToolError: a tool is there but failed.
    """
    names, folder = _targets(targets), find_run(run)
    title = artefact_name(folder)
    path = folder / EXPORT_FILE
    exported = read_json(path) if path.is_file() else {}
    stale = path.is_file() and (folder / WEIGHTS_FILE).stat().st_mtime > path.stat().st_mtime
    missing = [n for n in names if stale or not (folder / n).is_dir()]
    if missing or not exported:
        exported = export_run(folder, missing or names, console, lsb=exported.get("lsb", ()))
    inet = IntegerNetwork.load(folder / INTEGER_FOLDER)
    split, lsb = open_split(folder), exported.get("lsb", ())
    counts, lengths, golden = golden_run(inet, raw(split, lsb) if lsb else split, console)
    found: dict[str, Any] = {}
    for name in names:
        asked = samples.get(name) if isinstance(samples, Mapping) else samples
        n = min(len(split), asked or (VERILOG_SAMPLES if name == "verilog" else len(split)))
        part = _first(golden, n)
        with console.status(f"Running {name} on {n} samples"):
            result = verify(
                TARGETS[name], inet, folder / name, title, counts[:, :n], None if lengths is None else lengths[:n], part
            )
            if name == "onnx" and result.differing_spikes is not None:
                ends = None if lengths is None else lengths[:n]
                real = inet.inputs[0].real(counts[:, :n]) if lsb else counts[:, :n]
                close = float_agreement(load_network(folder), folder / name, title, real, ends).to_json()
                figures = close.pop("figures")
                said = Evaluation(split.labels[:n], np.array(figures.pop("classes")), golden.readout, split.classes)
                close |= figures | {"accuracy": said.accuracy, "macro_f1": said.macro_f1}
                result.figures["float"] = close
        found[name] = {"samples": n} | result.to_json() | ({"samples": 0} if result.differing_spikes is None else {})
    total = [t["differing_spikes"] for t in found.values()]
    reasons = [f"{n}: {t['reason']}" for n, t in found.items() if t["reason"]]
    values = {
        "run": str(folder),
        "samples": max(t["samples"] for t in found.values()),
        "accuracy": exported["accuracy"],
        "params": exported["params"],
        "spikes_per_sample": exported["spikes_per_sample"],
        "differing_spikes": None if None in total else sum(total),
        "reason": "; ".join(reasons) or None,
        "bytes": found["c"]["bytes"] if "c" in found else exported["bytes"],
        "ram": found["c"]["ram"] if "c" in found else exported["ram"],
        "passed": all(t["passed"] for t in found.values()),
        "targets": found,
    }
    write_json(folder / VERIFY_FILE, values)
    return values


def _first(golden: IntegerResult, n: int) -> IntegerResult:
    return IntegerResult(
        {k: v[:, :n] for k, v in golden.outputs.items()},
        golden.readout[:n],
        golden.classes[:n],
        {p: {s: v[:n] for s, v in own.items()} for p, own in golden.states.items()},
    )
