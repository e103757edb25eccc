"""How small a trained network can be made: weights of 8, 6 and 4 bits with and without training for it, fewer weights,
fewer neurons; on Ranvier Digits, or from finished runs of any kind.

One network per seed is trained in float, or each of the given runs taken, and every other one begins from it with the
same further epochs. Accuracies are those of the integer model on the test samples, bytes those of the constants of the
C program.
"""

from __future__ import annotations

import copy
import glob
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from ..deploy import IntegerNetwork, float_footprint, footprint
from ..errors import ConfigError, RunError
from ..files import atomic_path
from ..networks import Network, load_network
from . import digits, plots
from .batch import Split
from .compression import further
from .config import CONFIG_FILE, Config, load_config
from .data import load_test
from .evaluation import Evaluation, evaluate
from .experiment import Experiment, train
from .frontier import frontier, svg
from .runs import is_helper, locked, resumed_runs, runs_root, write_json
from .workflow import golden_run, quantized

RESULTS_FILE, REPORT_FILE, PLOT_FILE = "results.json", "report.html", "compress.svg"
SEEDS = 3
BASE = "float"


@dataclass(frozen=True)
class Variant:
    """A way to make the network smaller. ``rounded``: bits of an export without further training."""

    name: str
    doc: str
    bits: int = 0
    prune: float = 0.0
    neurons: float = 0.0
    rounded: int = 0

    @property
    def group(self) -> str:
        """The curve of the frontier that it belongs to."""
        if self.rounded:
            return "rounded, not trained for it"
        if self.neurons:
            return f"fewer neurons, {self.bits} bits"
        return f"fewer weights, {self.bits} bits" if self.prune else "trained with rounded weights"


VARIANTS = (
    Variant("further", "float, trained further"),
    *(Variant(f"rounded-{b}", f"rounded to {b} bits", rounded=b) for b in (8, 6, 4)),
    *(Variant(f"qat-{b}", f"trained with {b}-bit weights", bits=b) for b in (8, 6, 4)),
    *(
        Variant(f"prune-{100 * s:.0f}-{b}", f"{b} bits, {100 * s:.0f} % of the weights out", bits=b, prune=s)
        for b, s in ((8, 0.5), (8, 0.75), (8, 0.9), (4, 0.5), (4, 0.75))
    ),
    *(
        Variant(f"neurons-{100 * s:.0f}-{b}", f"{b} bits, {100 * s:.0f} % of the neurons out", bits=b, neurons=s)
        for b, s in ((8, 0.25), (8, 0.5), (4, 0.5))
    ),
)


def defaults() -> Config:
    """The recipe of Ranvier Digits with 128 neurons and 80 epochs."""
    config = digits.defaults()
    config.experiment = "compress"
    config.model.hidden, config.training.epochs = [128], 80
    return config


def measure(net: Network, inet: IntegerNetwork | None, test: Split, console: Console) -> dict[str, Any]:
    """Accuracies, bytes and spikes of one network; ``weights`` that are not 0, every copy counted."""
    found = evaluate(net, test, console)
    size = float_footprint(net)
    weights = [net.connection(k).weight.detach() for k in net.connections]
    values: dict[str, Any] = {
        "float_accuracy": found.accuracy,
        "float_macro_f1": found.macro_f1,
        "spikes_per_sample": found.spikes_per_sample,
        "float_bytes": size.total,
        "weights": sum(int((w != 0).sum()) for w in weights),
        "accuracy": None,
        "macro_f1": None,
        "bytes": None,
    }
    if inet is not None:
        golden = golden_run(inet, test, console)[2]
        exact = Evaluation(test.labels, golden.classes, golden.readout, test.classes)
        own = footprint(inet)
        values |= {
            "accuracy": exact.accuracy,
            "macro_f1": exact.macro_f1,
            "bytes": own.total,
            "weight_bytes": own.weights,
            "table_bytes": own.tables,
        }
    return values


def bases(config: Config, folder: Path) -> dict[str, Path]:
    """By name the folders of the float networks that all begin from: those of ``compression.start``, a run or a pattern
    of runs, or one for each seed in ``folder``.

    Raises:
        RunError: there is no such run.
    """
    start = config.compression.start
    if not start:
        seeds = range(config.training.seed, config.training.seed + SEEDS)
        return {f"seed-{s}": folder / f"seed-{s}" / BASE for s in seeds}
    patterns = (start, str(runs_root() / start))
    places = [Path(p) for pattern in patterns for p in glob.glob(pattern)]  # noqa: PTH207, which takes no whole paths
    found = {p.resolve().name: p for p in reversed(places) if (p / CONFIG_FILE).is_file()}
    if not found:
        raise RunError(f"there is no run {start!r} (compression.start), neither as a path nor in {runs_root()}")
    return dict(sorted(found.items()))


def run_one(
    variant: Variant | None, base: str, origin: Path, config: Config, folder: Path, console: Console
) -> dict[str, Any]:
    """Train (or only round) the network ``base``, whose float form lies in ``origin``, and measure it; None is the
    float network itself.
    """
    name = BASE if variant is None else variant.name
    place = origin if variant is None or variant.rounded else folder / base / name
    if variant is None and not config.compression.start:
        own = copy.deepcopy(config)
        own.training.seed = int(base.removeprefix("seed-"))
        train(own, place, console)
    elif variant is not None and not variant.rounded:
        train(further(origin, variant.bits, variant.prune, variant.neurons), place, console)
    net, test = load_network(place), load_test(load_config(place))
    inet = None
    if variant is not None and variant.name != "further":
        inet = quantized(place, net, console, variant.rounded)
    return {"variant": name, "base": base, **measure(net, inet, test, console)}


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """By variant: means over the networks that all began from; ``loss``: points below the float network that was
    trained as long; ``smaller``: how many times fewer bytes than the float network. Standard deviations are over seeds,
    of the means of each (``fold0-seed1``, ``fold1-seed1``, ...), or over the networks where there is one seed.
    """
    table: dict[str, Any] = {}
    reference = {r["base"]: r for r in runs if r["variant"] == "further"}
    for name in (BASE, *(v.name for v in VARIANTS)):
        own = [r for r in runs if r["variant"] == name]
        if not own:
            continue
        best = [r["float_accuracy"] if r["accuracy"] is None else r["accuracy"] for r in own]
        size = [r["float_bytes"] if r["bytes"] is None else r["bytes"] for r in own]
        fair = [r.get("float_macro_f1") if r.get("macro_f1") is None else r["macro_f1"] for r in own]
        lost = [
            100 * (reference[r["base"]]["float_accuracy"] - a) if r["base"] in reference else None
            for r, a in zip(own, best, strict=True)
        ]
        bases = [r["base"] for r in own]
        table[name] = {
            "networks": len(own),
            "accuracy": _spread(best, bases),
            "macro_f1": _spread(fair, bases),
            "loss": _spread(lost, bases),
            "bytes": float(np.mean(size)),
            "weights": float(np.mean([r["weights"] for r in own])),
            "smaller": float(np.mean([r["float_bytes"] / s for r, s in zip(own, size, strict=True)])),
        }
    return {"summary": table, "runs": runs}


def _spread(values: Sequence[float | None], bases: Sequence[str]) -> dict[str, float | None]:
    """Mean and standard deviation of what there is."""
    found = [(base, v) for base, v in zip(bases, values, strict=True) if v is not None]
    if not found:
        return {"mean": None, "sd": None}
    seeds: dict[str, list[float]] = {}
    for base, v in found:
        seeds.setdefault(base.rpartition("seed")[2] if "seed" in base else base, []).append(v)
    means = [float(np.mean(own)) for own in seeds.values()] if len(seeds) > 1 else [v for _, v in found]
    sd = float(np.std(means, ddof=1)) if len(means) > 1 else None
    return {"mean": float(np.mean([v for _, v in found])), "sd": sd}


def rows_of(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """The table: what, accuracy, macro-F1, points lost, bytes, times smaller."""
    docs = {BASE: "float", **{v.name: v.doc for v in VARIANTS}}
    lines = []
    for name, own in found.items():
        accuracy, fair, loss = own["accuracy"], own["macro_f1"], own["loss"]
        lines.append(
            (
                docs[name],
                f"{100 * accuracy['mean']:.1f} ± {100 * (accuracy['sd'] or 0):.1f}",
                "" if fair["mean"] is None else f"{fair['mean']:.3f}",
                "" if loss["mean"] is None else f"{loss['mean']:+.1f} ± {loss['sd'] or 0:.1f}",
                f"{own['bytes']:,.0f}",
                f"{own['smaller']:.2f}",
            )
        )
    return lines


HEAD = ("network", "test accuracy, %", "macro-F1", "points lost", "bytes", "times smaller")


def points(found: dict[str, Any]) -> dict[str, list[tuple[float, float, str]]]:
    """The frontier: by curve its (bytes, accuracy in percent, label), from large to small."""
    curves: dict[str, list[tuple[float, float, str]]] = {}
    for v in VARIANTS:
        if v.name in found:
            out, bits, own = v.prune or v.neurons, v.rounded or v.bits, found[v.name]
            # 6 bits take a byte, as 8 do, and would be written over each other
            label = f"-{100 * out:.0f} %" if out else {8: "8 and 6 bits", 4: "4 bits"}.get(bits, "")
            group = "float" if v.name == "further" else v.group
            curves.setdefault(group, []).append((own["bytes"], 100 * own["accuracy"]["mean"], label))
    return {name: sorted(curve, reverse=True) for name, curve in curves.items()}


def write_report(folder: Path, found: dict[str, Any]) -> Path:
    """``report.html`` and the frontier as ``compress.svg``."""
    from .report import STYLE

    figure = frontier(points(found))
    with atomic_path(folder / PLOT_FILE) as path:
        path.write_bytes(svg(figure))
    lines = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in rows_of(found))
    head = "".join(f"<th>{html.escape(h)}</th>" for h in HEAD)
    best = max((f["accuracy"]["mean"], n) for n, f in found.items())
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>compress: Ranvier report</title>'
        f"<style>{STYLE}</style></head><body><main><h1>Accuracy against bytes</h1>"
        f'<div class=wide><img src="{plots.address(figure)}" alt="Test accuracy over bytes of {len(found)} networks; '
        f'the best is {html.escape(best[1])} with {100 * best[0]:.1f} percent."></div>'
        f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>\n"
        "</main></body></html>\n"
    )
    with atomic_path(folder / REPORT_FILE) as path:
        path.write_text(page, "utf-8")
    return folder / REPORT_FILE


def _run(config: Config, folder: Path, console: Console, overwrite: bool) -> None:
    if is_helper():
        raise ConfigError("compress trains many small networks; leave training.devices at 1")
    path = folder / RESULTS_FILE
    with locked(folder):
        runs = resumed_runs(path, config, overwrite)
        done = {(r["variant"], r["base"]) for r in runs}
        for variant in (None, *VARIANTS):
            for base, origin in bases(config, folder).items():
                if ((BASE if variant is None else variant.name), base) not in done:
                    runs.append(run_one(variant, base, origin, config, folder, console))
                    write_json(path, summary(runs))
        found = summary(runs)["summary"]
        report = write_report(folder, found)
    table = Table(*HEAD, title=f"{config.compression.start or 'Ranvier Digits'} on few bytes")
    for row in rows_of(found):
        table.add_row(*row)
    console.print(table, f"{report}", sep="\n")


EXPERIMENT = Experiment(
    "compress",
    "8, 6 and 4 bits, fewer weights, fewer neurons: Ranvier Digits, or compression.start=RUNS",
    defaults,
    _run,
)
