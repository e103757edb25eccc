"""The picture of accuracy against bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from .plots import BLACK, BLUE, GREEN, ORANGE, PURPLE, VERMILION

_STYLES = (
    (BLACK, "D", "-"), (VERMILION, "s", "--"), (BLUE, "o", "-"),
    (GREEN, "^", ":"), (PURPLE, "v", ":"), (ORANGE, "P", "-."),
)  # fmt: skip


def frontier(curves: Mapping[str, Sequence[tuple[float, float, str]]]) -> Figure:
    """Curves by name, each of (bytes, accuracy in percent, label)."""
    import matplotlib

    with matplotlib.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure((8, 4.4), layout="constrained")
        axis = figure.subplots()
    for (name, curve), (colour, marker, dash) in zip(curves.items(), _STYLES, strict=False):
        sizes, accuracies, labels = zip(*curve, strict=True)
        axis.plot([s / 1000 for s in sizes], accuracies, dash, marker=marker, color=colour, label=name)
        for size, accuracy, label in zip(sizes, accuracies, labels, strict=True):
            axis.annotate(label, (size / 1000, accuracy), (4, 5), textcoords="offset points", fontsize=8, color=colour)
    axis.set_xscale("log")
    every = [s / 1000 for curve in curves.values() for s, _, _ in curve]
    ticks = [t for t in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if min(every) / 1.5 <= t <= max(every) * 1.5]
    axis.set_xticks(ticks, [str(t) for t in ticks])
    axis.minorticks_off()
    axis.grid(alpha=0.25)
    axis.set_xlabel("kilobytes of weights, scales, biases and other constants")
    axis.set_ylabel("test accuracy (%)")
    axis.legend(frameon=False)
    return figure


def svg(figure: Figure) -> bytes:
    """The picture as a file; the same figure gives the same bytes."""
    import matplotlib

    stream = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "ranvier", "svg.fonttype": "path"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()
