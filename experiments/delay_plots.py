"""The delays of a run, before and after learning, as numbers and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ..errors import RanvierError, RunError
from ..files import atomic_path
from ..networks import Network, delays_of, load_network
from . import plots
from .config import Config, load_config
from .model import INPUT, READOUT, build_network
from .runs import find_run

PICTURE_FILE = "delays.png"


@dataclass(frozen=True)
class Delays:
    """The delays of one connection in whole steps, as evaluation uses them.

    ``after`` are those of the run, ``before`` those it began with, or None where these cannot be known; both flat.
    ``low`` and ``high`` are the bounds.
    """

    name: str
    kind: str
    low: int
    high: int
    dt: float
    after: NDArray[np.int64]
    before: NDArray[np.int64] | None = None

    @property
    def changed(self) -> float | None:
        """The share of delays that training moved to another whole step, or None."""
        return None if self.before is None else float((self.after != self.before).mean())


def run_delays(config: Config, net: Network) -> list[Delays]:
    """All delays of ``net``, a run's network, with those that ``config`` began with; an empty list if it has none.

    The beginning is not kept in a run folder: the settings and their seed give it again. Where they give another
    network (that of an experiment that builds its own), ``before`` is None.
    """
    start = _start(config, net)
    found = []
    for source, target, key in net.graph.edges(keys=True):
        own = delays_of(net.connection(key))
        first = delays_of(start.connection(key)) if start is not None and key in start.connections else []
        for i, delay in enumerate(own):
            after = delay.whole().flatten().numpy()
            before = first[i].whole().flatten().numpy() if i < len(first) and first[i].kind == delay.kind else None
            if before is not None and before.shape != after.shape:
                before = None
            label = f"{source} → {target}"
            found.append(Delays(label, delay.kind, delay.low, delay.high, net.dt, after, before))
    return found


def _start(config: Config, net: Network) -> Network | None:
    sizes = {name: int(data["size"]) for name, data in net.graph.nodes(data=True)}
    if INPUT not in sizes or READOUT not in sizes or config.compression.start:  # begun with another run's network
        return None
    try:
        return build_network(config, sizes[INPUT], sizes[READOUT])
    except RanvierError:  # another experiment's settings, which mean nothing here
        return None


def picture(found: Sequence[Delays], steps: bool = False) -> Figure:
    """One histogram of whole-step delays for each connection, in ms (in steps where these have no fixed length)."""
    return plots.delays([(f"{d.name}, {d.kind}", d.low, d.high, d.after, d.before, d.dt) for d in found], steps)


def describe(found: Sequence[Delays]) -> list[list[str | int | float | None]]:
    """A row for each connection: name, kind, number, bounds, mean before, mean after (steps), share that moved."""
    return [
        [
            d.name,
            d.kind,
            len(d.after),
            f"{d.low} to {d.high}",
            None if d.before is None else float(d.before.mean()),
            float(d.after.mean()),
            "" if d.changed is None else f"{100 * d.changed:.0f} %",
        ]
        for d in found
    ]


def plot_delays(run: str | Path, out: Path | None = None) -> Path:
    """Write the picture of a run's delays as PNG into ``RUN/delays.png`` (or ``out``); returns the path.

    Raises:
        RunError: there is no such run, it has no finished epoch, or its network has no delays of its own.
    """
    folder = find_run(run)
    config = load_config(folder)
    found = run_delays(config, load_network(folder))
    if not found:
        raise RunError(f"{folder} has no delays to show; train with delays, for example model.delay_recurrent=axonal")
    target = out or folder / PICTURE_FILE
    if target.suffix != ".png":
        raise RunError(f"{target}: the picture is a PNG; give it a name that ends in .png")
    with atomic_path(target) as path:
        picture(found, config.data.relative).savefig(path, format="png", dpi=130, metadata={"Software": None})
    return target
