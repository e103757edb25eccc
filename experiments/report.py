"""report.html: everything about a run in one file that needs no network and no other file."""

from __future__ import annotations

import csv
import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from ..files import atomic_path
from ..networks import Network, load_network
from . import plots
from .config import Config, load_config, walk
from .delay_plots import Delays, describe, picture, run_delays
from .evaluation import Evaluation, evaluate, record
from .runs import HISTORY_FILE, METRICS_FILE, find_run, read_json
from .workflow import EXPORT_FILE, VERIFY_FILE, count_parameters, open_split

REPORT_FILE = "report.html"
RASTERS = 3

STYLE = """
:root { color-scheme: light; --ink: #1c2430; --soft: #566072; --line: #d9dee6; --band: #f4f6f9; --accent: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: #fff; }
body { font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 56rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; margin: 0 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; padding-top: .8rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p { margin: .4rem 0; } .soft { color: var(--soft); }
img { display: block; width: 100%; min-width: 27rem; height: auto; margin: .4rem 0; }
img.square { max-width: 40rem; min-width: 20rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .6rem; }
.cards { margin: 1.2rem 0; padding: 0; list-style: none; }
.cards li { background: var(--band); border-radius: .5rem; padding: .7rem .8rem; }
.cards b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; margin: .4rem 0; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.n, th.n { text-align: right; }
th { font-weight: 600; }
details { margin: .4rem 0 1rem; } summary { cursor: pointer; color: var(--accent); }
.good { color: #00664b; font-weight: 600; } .bad { color: #a83e00; font-weight: 600; }
@media print { details { display: none; } }
"""


def report_run(run: str | Path, console: Console) -> Path:
    """Write ``report.html`` of a run, from its folder and its test set; returns the path.

    Integer and verification tables appear once `ranvier export` and `ranvier verify` have been run.

    Raises:
        RunError: the run has no finished epoch, or a file in it is damaged.
    """
    folder = find_run(run)
    config, net = load_config(folder), load_network(folder)
    split = open_split(folder)
    found = evaluate(net, split, console)
    history = read_history(folder / HISTORY_FILE)
    metrics = read_json(folder / METRICS_FILE) if (folder / METRICS_FILE).is_file() else {}
    exported = read_json(folder / EXPORT_FILE) if (folder / EXPORT_FILE).is_file() else {}
    verified = read_json(folder / VERIFY_FILE) if (folder / VERIFY_FILE).is_file() else {}
    rows = np.array([int(np.flatnonzero(found.labels == k)[0]) for k in np.unique(found.labels)[:RASTERS]])
    counts, recorded = record(net, split, rows)
    parts = [
        _head(folder, config, found, count_parameters(folder, net), exported, verified, metrics),
        _verification(found, exported, verified),
        _curves(history, int(metrics.get("best_epoch", 0))),
        _confusion(found),
        _populations(net, found),
        _delays(run_delays(config, net), config),
        _rates(found, config),
        _rasters(found, rows, counts, recorded, config),
        _settings(config),
    ]
    body = "\n".join(parts)
    title = html.escape(f"{folder.name}: Ranvier report")
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )
    with atomic_path(folder / REPORT_FILE) as path:
        path.write_text(page, "utf-8")
    return folder / REPORT_FILE


def read_history(path: Path) -> list[dict[str, float]]:
    """The rows of metrics.csv; none if there is no such file."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


# -- pieces of HTML ----------------------------------------------------------------------------------------------------


def _cell(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return "&ndash;" if value is None else str(value)
    if isinstance(value, float):
        return f"{value:,.3f}" if abs(value) < 100 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int | np.integer) else html.escape(str(value))


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    rows = [list(r) for r in rows]
    numeric = [all(isinstance(r[i], int | float | np.integer | None) for r in rows) for i in range(len(head))]
    top = "".join(f"<th{' class=n' if n else ''}>{html.escape(h)}</th>" for h, n in zip(head, numeric, strict=True))
    lines = (
        "<tr>"
        + "".join(f"<td{' class=n' if n else ''}>{_cell(v)}</td>" for v, n in zip(r, numeric, strict=True))
        + "</tr>"
        for r in rows
    )
    return f"<div class=wide><table><thead><tr>{top}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"


def _behind(table: str, what: str = "The numbers") -> str:
    return f"<details><summary>{html.escape(what)} as a table</summary>{table}</details>"


def _image(source: str, alt: str, square: bool = False) -> str:
    kind = " class=square" if square else ""
    return f'<div class=wide><img src="{source}" alt="{html.escape(alt, quote=True)}"{kind}></div>'


def _clock(config: Config) -> str:
    d = config.data
    if d.relative:
        return f"{round(d.window / d.dt)} steps over each sample's own duration"
    return f"steps of {d.dt:g} ms"


# -- sections ----------------------------------------------------------------------------------------------------------


def _head(
    folder: Path,
    config: Config,
    found: Evaluation,
    params: int,
    exported: Mapping[str, Any],
    verified: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> str:
    cards: list[tuple[str, str]] = [(f"{100 * found.accuracy:.1f} %", "test accuracy")]
    if exported:
        cards.append((f"{100 * exported['accuracy']:.1f} %", f"test accuracy, {_integers(exported)}"))
    cards += [(f"{params:,}", "parameters"), (f"{found.spikes_per_sample:,.0f}", "spikes per sample")]
    if exported.get("bytes") is not None:
        cards.append((f"{exported['bytes']:,}", "bytes of the C program"))
    if exported.get("ram") is not None:
        cards.append((f"{exported['ram']:,}", "bytes of RAM"))
    if verified:
        total = verified["differing_spikes"]
        cards.append(("not run" if total is None else f"{total:,}", "differing spikes"))
    state = "" if metrics else " Training has not finished; these are the best weights so far."
    items = "".join(f"<li><b>{v}</b>{html.escape(k)}</li>" for v, k in cards)
    layers = " &rarr; ".join(str(s) for s in config.model.hidden)
    return (
        f"<h1>{html.escape(folder.name)}</h1>\n<p class=soft>Experiment {html.escape(config.experiment)}: "
        f"{'recurrent' if config.model.recurrent else 'feed-forward'} {html.escape(config.model.neuron)} ({layers}), "
        f"{len(found.classes)} classes, {len(found.labels):,} test samples, "
        f"{_clock(config)}.{state}</p>\n"
        f"<ul class=cards>{items}</ul>"
    )


def _integers(exported: Mapping[str, Any]) -> str:
    return f"{exported.get('weight_bits', 8)}-bit integers"


def _verification(found: Evaluation, exported: Mapping[str, Any], verified: Mapping[str, Any]) -> str:
    if not exported and not verified:
        return (
            "<h2>On a device</h2><p class=soft>Not exported yet: <code>ranvier export RUN --target c</code> and "
            "<code>ranvier verify RUN --target c</code> fill this section.</p>"
        )
    text = ["<h2>On a device</h2>"]
    if exported:
        rows = [["float", f"{100 * found.accuracy:.2f} %", found.spikes_per_sample]]
        rows += [[_integers(exported), f"{100 * exported['accuracy']:.2f} %", float(exported["spikes_per_sample"])]]
        text.append(_table(["network", "test accuracy", "spikes per sample"], rows))
    if verified:
        rows = []
        for name, target in verified["targets"].items():
            said = target["differing_spikes"]
            rows.append(
                [
                    name,
                    (target.get("figures") or {}).get("tool") or {"c": "C compiler"}.get(name, ""),
                    target.get("samples"),
                    said,
                    target.get("reason") or "",
                ]
            )
        text.append("<h3>Spikes that differ from the integer model</h3>")
        text.append(_table(["target", "tool", "samples", "differing spikes", "note"], rows))
        total = verified["differing_spikes"]
        if total == 0:
            text.append("<p class=good>Every spike of every population is the same.</p>")
        elif total:
            text.append(f"<p class=bad>{total:,} spikes differ.</p>")
    return "\n".join(text)


def _curves(history: list[dict[str, float]], best: int) -> str:
    if not history:
        return ""
    last = history[-1]
    alt = (
        f"Line plots over {len(history)} epochs. Training loss ends at {last['train_loss']:.3f}, training accuracy at "
    )
    alt += f"{100 * last['train_accuracy']:.1f} percent"
    if "valid_accuracy" in last:
        alt += f"; validation loss ends at {last['valid_loss']:.3f}, "
        alt += f"validation accuracy at {100 * last['valid_accuracy']:.1f} percent"
    rows = [[int(v) if k == "epoch" else v for k, v in row.items()] for row in history]
    table = _table([k.replace("_", " ") for k in history[0]], rows)
    return f"<h2>Training</h2>{_image(plots.curves(history, best), alt + '.')}{_behind(table, 'Every epoch')}"


def _confusion(found: Evaluation) -> str:
    matrix = found.confusion
    wrong = matrix * (1 - np.eye(len(matrix), dtype=int))
    pairs = sorted(((int(wrong[i, j]), i, j) for i, j in zip(*np.nonzero(wrong), strict=True)), reverse=True)
    alt = f"Confusion matrix of {len(found.classes)} classes; {100 * found.accuracy:.1f} percent lie on the diagonal."
    if pairs:
        n, i, j = pairs[0]
        alt += f" Most often {found.classes[i]} is taken for {found.classes[j]}: {n} times."
    rows = []
    for k, name in enumerate(found.classes):
        row = matrix[k]
        mistakes = ", ".join(
            f"{found.classes[j]} ({row[j]})" for j in np.argsort(-row, kind="stable") if row[j] and j != k
        )
        rows.append([name, int(row.sum()), f"{100 * row[k] / max(1, row.sum()):.1f} %", mistakes or "none"])
    table = _table(["class", "samples", "right", "taken for"], rows)
    return (
        "<h2>What is confused with what</h2><p class=soft>Test set. Rows are the truth, columns the answers; "
        "bright: a large share of the row.</p>"
        f"{_image(plots.confusion(matrix, found.classes), alt, square=True)}{_behind(table)}"
    )


def _populations(net: Network, found: Evaluation) -> str:
    rows = []
    for name in net.populations:
        neuron = net.neuron(name)
        spikes = float(found.spikes[name].mean()) if name in found.spikes else None
        silent = int((found.rates[name] == 0).sum()) if name in found.rates else None
        rows.append([name, getattr(neuron, "label", type(neuron).__name__), neuron.size, spikes, silent])
    first = _table(["population", "neuron", "size", "spikes per sample", "silent neurons"], rows)
    rows = []
    for source, target, key, data in net.graph.edges(keys=True, data=True):
        connection, low, high = net.connection(key), int(data["delay"]), int(data["reach"])
        shown = low if low == high else f"{low} to {high}"
        rows.append([f"{source} → {target}", sum(p.numel() for p in connection.parameters()), shown])
    second = _table(["connection", "parameters", "delay (steps)"], rows)
    return f"<h2>Parameters and spikes</h2>{first}{second}"


def _delays(found: list[Delays], config: Config) -> str:
    if not found:
        return ""
    head = ["connection", "kind", "delays", "bounds (steps)", "mean at the start", "mean as learned", "moved"]
    alt = "Histograms of delays in whole steps. " + "; ".join(
        f"{d.name}: {len(d.after)} {d.kind} delays, median {np.median(d.after):g} steps"
        + ("" if d.before is None else f" (at the start {np.median(d.before):g})")
        for d in found
    )
    figure = picture(found, config.data.relative)
    return (
        "<h2>Delays</h2><p class=soft>In whole steps, one tap each, as in every figure of this report.</p>"
        f"{_image(plots.address(figure), alt)}{_behind(_table(head, describe(found)))}"
    )


def _rates(found: Evaluation, config: Config) -> str:
    # in relative time a step has no fixed length, so there is no rate per second
    unit, scale = ("spikes per step", 1.0) if config.data.relative else ("spikes per second", 1000 / config.data.dt)
    hertz = {n: r * scale for n, r in found.rates.items()}
    alt = "Histogram of mean firing rates over the test set. " + "; ".join(
        f"{n}: median {np.median(r):.2g}, highest {r.max():.2g} {unit}, "
        f"{int((r == 0).sum())} of {len(r)} neurons silent"
        for n, r in hertz.items()
    )
    marks = (0, 10, 25, 50, 75, 90, 100)
    rows = [[n, *(float(v) for v in np.percentile(r, marks))] for n, r in hertz.items()]
    table = _table(["population", *(f"{m} %" for m in marks)], rows)
    return f"<h2>Firing rates</h2>{_image(plots.rates(hertz, unit), alt)}{_behind(table, f'Percentiles in {unit}')}"


def _rasters(
    found: Evaluation, rows: np.ndarray, counts: np.ndarray, recorded: dict[str, np.ndarray], config: Config
) -> str:
    text = ["<h2>A few samples, from ear to answer</h2>"]
    out = recorded[next(reversed(recorded))]
    for b, row in enumerate(rows):
        truth, said = found.classes[found.labels[row]], found.classes[found.predictions[row]]
        hidden = {n: recorded[n][:, b] for n in found.spikes}
        source = plots.raster(
            counts[:, b],
            hidden,
            out[:, b],
            int(found.labels[row]),
            found.classes,
            None if config.data.relative else config.data.dt,
        )
        numbers = [
            ["input events", int(counts[:, b].sum())],
            *([f"spikes of {n}", int(s.sum())] for n, s in hidden.items()),
        ]
        best = np.argsort(-found.outputs[row], kind="stable")[:5]
        numbers += [[f"readout of {found.classes[k]}", float(found.outputs[row][k])] for k in best]
        alt = f"Raster plots of test sample {row}, a spoken {truth}, answered {said}: " + ", ".join(
            f"{n} {v}" for n, v in numbers[:2]
        )
        verdict = "right" if truth == said else f"taken for {said}"
        text.append(
            f"<h3>{html.escape(truth)} ({html.escape(verdict)})</h3>"
            f"{_image(source, alt)}{_behind(_table(['', ''], numbers))}"
        )
    return "\n".join(text)


def _settings(config: Config) -> str:
    rows = [[key, str(value), str(meta["doc"])] for key, value, meta in walk(config)]
    return f"<h2>Settings</h2>{_behind(_table(['setting', 'value', 'meaning'], rows), 'Every setting')}"
