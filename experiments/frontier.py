"""The picture of accuracy against bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from .plots import BLACK, BLUE, GREEN, ORANGE, PURPLE, VERMILION

_STYLES = (
    (BLACK, "D", "-"), (VERMILION, "s", "--"), (BLUE, "o", "-"),
    (GREEN, "^", ":"), (PURPLE, "v", ":"), (ORANGE, "P", "-."), ("#56B4E9", "X", "-."),
)  # fmt: skip
_BESIDE = (
    ((5, 5), "left"), ((-5, -12), "right"), ((5, -12), "left"), ((5, 5), "left"),
    ((-5, 5), "right"), ((-5, 5), "right"), ((5, -12), "left"),
)  # fmt: skip
"""Where the labels of each curve stand."""

SHOWN = 25.0
"""Points below the best that are shown; what lies lower is in the table."""


def frontier(curves: Mapping[str, Sequence[tuple[float, float, str]]]) -> Figure:
    """Curves by name, each of (bytes, accuracy in percent, label)."""
    import matplotlib

    with matplotlib.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure((8, 4.4), layout="constrained")
        axis = figure.subplots()
    best = max(accuracy for curve in curves.values() for _, accuracy, _ in curve)
    for i, ((name, curve), (colour, marker, dash)) in enumerate(zip(curves.items(), _STYLES, strict=False)):
        beside, side = _BESIDE[i]
        sizes, accuracies, labels = zip(*curve, strict=True)
        axis.plot([s / 1000 for s in sizes], accuracies, dash, marker=marker, color=colour, label=name)
        for size, accuracy, label in zip(sizes, accuracies, labels, strict=True):
            if label and accuracy > best - SHOWN:
                place = (size / 1000, accuracy)
                axis.annotate(label, place, beside, textcoords="offset points", fontsize=8, color=colour, ha=side)
    low = min(accuracy for curve in curves.values() for _, accuracy, _ in curve)
    axis.set_ylim(max(low, best - SHOWN) - 2, best + 3)
    axis.set_xscale("log")
    every = [s / 1000 for curve in curves.values() for s, _, _ in curve]
    ticks = [t for t in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if min(every) / 1.5 <= t <= max(every) * 1.5]
    axis.set_xticks(ticks, [str(t) for t in ticks])
    axis.minorticks_off()
    axis.grid(alpha=0.25)
    axis.set_xlabel("kilobytes of weights, scales, biases and other constants")
    axis.set_ylabel("test accuracy (%)")
    axis.legend(frameon=False, loc="lower right")
    return figure


def svg(figure: Figure) -> bytes:
    """The picture as a file; the same figure gives the same bytes."""
    import matplotlib

    stream = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "ranvier", "svg.fonttype": "path"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()
