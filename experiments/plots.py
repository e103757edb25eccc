"""The pictures of a report, each as a data address for an <img>, in colours that colour-blind readers tell apart."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe & Ito 2008, "Color Universal Design"
BLUE, ORANGE, GREEN, VERMILION, PURPLE, BLACK = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#222222"
_DASHES = ("-", "--", ":", "-.")
_STYLE = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25}


def _figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: object
) -> tuple[Figure, np.ndarray]:
    import matplotlib

    with matplotlib.rc_context(_STYLE):  # pyright: ignore[reportArgumentType]
        figure = Figure((width, height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, **options)  # type: ignore[arg-type]
    return figure, axes


def address(figure: Figure, kind: str = "svg") -> str:
    """A figure as ``data:image/...;base64,...``; ``png`` for pictures of many marks."""
    import matplotlib

    stream = io.BytesIO()
    # no date and fixed ids: the same run gives the same bytes
    with matplotlib.rc_context({"svg.hashsalt": "ranvier", "svg.fonttype": "path"}):
        figure.savefig(stream, format=kind, dpi=130, metadata={"Date": None} if kind == "svg" else {"Software": None})
    mime = "image/svg+xml" if kind == "svg" else "image/png"
    return f"data:{mime};base64,{base64.b64encode(stream.getvalue()).decode()}"


def curves(rows: Sequence[Mapping[str, float]], best: int) -> str:
    """Loss and accuracy over epochs; a dotted line marks the epoch whose weights were kept."""
    figure, axes = _figure(8, 3.2, 1, 2)
    epochs = [r["epoch"] for r in rows]
    for axis, what in zip(axes[0], ("loss", "accuracy"), strict=True):
        for stage, colour, dash in (("train", BLUE, "-"), ("valid", VERMILION, "--")):
            name = f"{stage}_{what}"
            if name in rows[0]:
                scale = 100 if what == "accuracy" else 1
                label = {"train": "training", "valid": "validation"}[stage]
                mark = "o" if len(rows) < 3 else ""
                axis.plot(epochs, [scale * r[name] for r in rows], dash, color=colour, label=label, marker=mark)
        if best:
            axis.axvline(best, color=BLACK, linestyle=":", linewidth=1, label="weights kept")
        axis.set_xlabel("epoch")
        axis.set_ylabel("loss" if what == "loss" else "accuracy (%)")
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0, 1].set_ylim(0, 100)
    axes[0, 0].legend(frameon=False)
    return address(figure)


def confusion(matrix: np.ndarray, classes: Sequence[str]) -> str:
    """Rows are the true classes, columns the answers; shares of a row in colour, counts written."""
    n = len(classes)
    size = min(9.0, 2.2 + 0.34 * n)
    figure, axes = _figure(size, size)
    axis: Axes = axes[0, 0]
    share = matrix / np.maximum(1, matrix.sum(1, keepdims=True))
    axis.imshow(share, cmap="cividis", vmin=0, vmax=1)
    if n <= 35:
        for i, j in zip(*np.nonzero(matrix), strict=True):
            colour = "black" if share[i, j] > 0.6 else "white"
            axis.text(j, i, str(matrix[i, j]), ha="center", va="center", color=colour, fontsize=7.5)
    axis.set_xticks(range(n), classes, rotation=90)
    axis.set_yticks(range(n), classes)
    axis.grid(visible=False)
    axis.set_xlabel("answered")
    axis.set_ylabel("true class")
    return address(figure)


def raster(
    counts: np.ndarray,
    hidden: Mapping[str, np.ndarray],
    output: np.ndarray,
    truth: int,
    classes: Sequence[str],
    dt: float | None,
) -> str:
    """One sample, top to bottom: input counts [T, C], spikes of hidden populations [T, N], readout [T, classes].

    ``dt`` in ms, or None where steps have no fixed length.
    """
    figure, axes = _figure(8, 2.0 * (2 + len(hidden)), 2 + len(hidden), 1, sharex=True)
    unit = dt or 1.0
    time = np.arange(len(counts)) * unit
    for axis, (name, spikes) in zip(axes[:, 0], (("input channel", counts), *hidden.items()), strict=False):
        step, neuron = np.nonzero(spikes)
        axis.scatter(time[step], neuron, s=7, c=BLUE if name == "input channel" else BLACK, marker="|", linewidths=1.1)
        axis.set_ylim(-1, spikes.shape[1])
        axis.set_ylabel(name if name == "input channel" else f"{name} neuron")
        axis.grid(visible=False)
    axis = axes[-1, 0]
    total = output.sum(0)
    order = [int(k) for k in np.argsort(-total, kind="stable") if k != truth]
    for k in order[2:]:
        axis.plot(time, output[:, k], color="#bbbbbb", linewidth=0.7)
    for k, colour, dash in zip(order[:2], (VERMILION, PURPLE), ("--", "-."), strict=False):
        axis.plot(time, output[:, k], dash, color=colour, label=classes[k])
    axis.plot(time, output[:, truth], color=BLUE, linewidth=2, label=f"{classes[truth]} (true)")
    axis.set_ylabel("readout")
    axis.set_xlabel("time (ms)" if dt else "step")
    axis.set_xlim(-0.5 * unit, (len(counts) - 0.5) * unit)
    axis.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 0.97), ncols=3, fontsize=8)
    return address(figure, "png")


def rates(populations: Mapping[str, np.ndarray], unit: str) -> str:
    """How many neurons fire at which mean rate."""
    figure, axes = _figure(8, 2.8)
    top = max(float(r.max()) for r in populations.values()) or 1.0
    edges = np.linspace(0, top, 26)
    colours = (BLUE, ORANGE, GREEN, PURPLE)
    for i, (name, values) in enumerate(populations.items()):
        counts, _ = np.histogram(values, edges)
        axes[0, 0].stairs(counts, edges, fill=i == 0, color=colours[i % 4], label=name, linestyle=_DASHES[i % 4])
    axes[0, 0].set_xlabel(f"mean rate ({unit})")
    axes[0, 0].set_ylabel("neurons")
    if len(populations) > 1:
        axes[0, 0].legend(frameon=False)
    return address(figure)


def delays(
    connections: Sequence[tuple[str, int, int, np.ndarray, np.ndarray | None, float]], steps: bool = False
) -> Figure:
    """Histograms of delays, one below the other: (title, shortest, longest, delays, delays before or None, dt in ms),
    all delays in whole steps. ``steps``: label in steps, where these have no fixed length.
    """
    figure, axes = _figure(8, 0.4 + 2.3 * len(connections), len(connections))
    for axis, (title, low, high, after, before, dt) in zip(axes[:, 0], connections, strict=True):
        unit = 1.0 if steps else dt
        at = np.arange(low, high + 1)
        counts = np.bincount(after - low, minlength=len(at))
        label = "as learned" if before is not None else "delays"
        axis.bar(unit * at, counts, 0.8 * unit, color=BLUE, label=label)
        if before is not None:
            edges = unit * (np.arange(low, high + 2) - 0.5)
            start = np.bincount(before - low, minlength=len(at))
            axis.stairs(start, edges, color=VERMILION, linewidth=1.6, linestyle="--", label="at the start")
            axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
        axis.set_title(title, fontsize=10, loc="left")
        axis.set_ylabel("delays")
        axis.yaxis.get_major_locator().set_params(integer=True)
        axis.set_xlim(unit * (low - 0.7), unit * (high + 0.7))
        if steps:
            axis.xaxis.get_major_locator().set_params(integer=True)
    axes[-1, 0].set_xlabel("delay (steps)" if steps else "delay (ms)")
    return figure
