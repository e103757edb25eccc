"""What the command line does with a run folder after training: evaluate, export, verify.

Everything here reads graph.json, model.safetensors and config.yaml only; the code that defined or trained the network
is not needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from ..errors import ConfigError
from ..networks import Network, load_network
from .config import load_config
from .data import Split, load_test, load_training
from .evaluation import evaluate
from .runs import METRICS_FILE, find_run, read_json

EXPORT_FILE = "export.json"
VERIFY_FILE = "verification.json"


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
