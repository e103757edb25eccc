"""What an experiment is, and what every one does by default: train one network into one run folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from ..networks import load_network
from .config import Config
from .data import load_test, load_training
from .evaluation import evaluate
from .runs import METRICS_FILE, is_helper, locked, open_run, read_json, write_json
from .start import begin


def train(config: Config, folder: Path, console: Console | None = None, overwrite: bool = False) -> dict[str, Any]:
    """Train ``config`` into ``folder``, or resume what is there, and return what is written to ``metrics.json``.

    The test set is read once, after training, with the weights that were kept. Calling it again on a finished run
    trains nothing.

    Returns:
        ``experiment``, ``epochs``, ``best_epoch``, ``params``, ``train_samples``, ``validation_samples``, ``samples``
        (test), ``accuracy`` (test), ``spikes_per_sample``, ``seconds`` of this process's training, and the last
        values of every logged number.

    Raises:
        RunError: the folder holds another run, is in use, or the loss is not finite.
        ConfigError, DataError: settings or files are wrong.
    """
    console = Console(quiet=True) if is_helper() else console or Console(stderr=True)
    with locked(folder):
        state = "unfinished" if is_helper() else open_run(folder, config, overwrite)
        if state == "finished":
            console.print(f"{folder} is finished with these settings; nothing to train (--overwrite starts anew)")
            return read_json(folder / METRICS_FILE)
        training, validation = load_training(config)
        net = begin(config, training)
        params = net.count_parameters()  # before training, which freezes delays at its end
        console.print(
            f"{folder}: {len(training)} samples to train on, {len(validation) if validation else 0} to validate on; "
            f"{params:,} parameters"
        )
        from .training import fit  # Lightning takes seconds to import

        trained = fit(config, net, training, validation, folder, console)
        if is_helper():
            raise SystemExit(0)
        test = load_test(config)
        found = evaluate(load_network(folder), test, console)
        metrics = {
            "experiment": config.experiment,
            "epochs": trained.epochs,
            "best_epoch": trained.best_epoch,
            "params": params,
            "train_samples": len(training),
            "validation_samples": len(validation) if validation else 0,
            "samples": len(test),
            "accuracy": found.accuracy,
            "spikes_per_sample": found.spikes_per_sample,
            "seconds": round(trained.seconds, 1),
            **trained.metrics,
        }
        write_json(folder / METRICS_FILE, metrics)
    return metrics


def train_and_say(config: Config, folder: Path, console: Console, overwrite: bool) -> None:
    """:func:`train`, with its result as a sentence."""
    m = train(config, folder, console, overwrite)
    console.print(
        f"Test accuracy {100 * m['accuracy']:.1f} % on {m['samples']} samples, "
        f"{m['spikes_per_sample']:.0f} spikes a sample: {folder}"
    )


@dataclass(frozen=True)
class Experiment:
    """A published experiment: its name, a sentence, its settings, and how it runs (by default :func:`train`)."""

    name: str
    doc: str
    defaults: Callable[[], Config]
    run: Callable[[Config, Path, Console, bool], None] = train_and_say
