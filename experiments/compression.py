"""Training a finished run further, so that it takes less room on a device."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

from rich.console import Console

from ..errors import RunError
from .config import Config, checked, load_config
from .experiment import train
from .runs import METRICS_FILE, find_run, runs_root

EPOCHS_SHARE, LR_SHARE = 0.2, 0.2
"""Of the epochs and the learning rate of a run, those with which it is compressed."""


def compress_run(
    run: str | Path,
    console: Console,
    bits: int = 8,
    prune: float = 0.0,
    prune_neurons: float = 0.0,
    epochs: int | None = None,
    lr: float | None = None,
    out: str | None = None,
) -> dict[str, Any]:
    """Train a finished run further with rounded weights, and fewer of them, into a run of its own.

    Args:
        epochs, lr: by default a fifth of those of the run.
        out: name or path of the new run; by default the old one's name with what was asked.

    Returns:
        What :func:`train` does, and ``run``, the new folder.

    Raises:
        RunError: the run is not finished, or the new folder holds another.
        ConfigError: for values out of range.
    """
    folder = find_run(run)
    config = further(folder, bits, prune, prune_neurons, epochs, lr)
    new = _folder(folder, out, config)
    return {"run": str(new), **train(config, new, console)}


def further(
    folder: Path,
    bits: int = 0,
    prune: float = 0.0,
    prune_neurons: float = 0.0,
    epochs: int | None = None,
    lr: float | None = None,
) -> Config:
    """The settings with which the finished run in ``folder`` is trained further; as for :func:`compress_run`."""
    if not (folder / METRICS_FILE).is_file():
        raise RunError(f"{folder} has not finished its training; `ranvier train` goes on with it")
    config = copy.deepcopy(load_config(folder))
    c, t = config.compression, config.training
    c.start, c.bits, c.prune, c.prune_neurons = str(folder.resolve()), bits, prune, prune_neurons
    t.epochs, t.lr = epochs or math.ceil(EPOCHS_SHARE * t.epochs), lr or LR_SHARE * t.lr
    return checked(config, "compress")


def _folder(folder: Path, out: str | None, config: Config) -> Path:
    c = config.compression
    if out is not None:
        return Path(out) if "/" in out else runs_root() / out
    parts = [f"{c.bits}bit"] if c.bits else []
    parts += [f"prune{100 * c.prune:g}"] if c.prune else []
    parts += [f"neurons{100 * c.prune_neurons:g}"] if c.prune_neurons else []
    return folder.with_name("-".join([folder.name, *(parts or ["further"])]))
