"""Free Spoken Digit Dataset, one speaker left out: every speaker is the test set of one fold, and every fold is
trained with several seeds.

Nothing is chosen on a test speaker: the settings come from Ranvier Digits, and where early stopping or the best epoch
is wanted, an inner speaker of the fold's own training speakers decides (``data.validation_speakers``).
[https://github.com/Jakobovski/free-spoken-digit-dataset]
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from ..datasets.fsdd import convert_fsdd
from ..errors import DataError
from ..files import cache_folder
from .config import Config, differences
from .data import source
from .experiment import Experiment, train
from .runs import is_helper, locked, read_json, write_json

RESULTS_FILE = "results.json"
SEEDS = 5


def defaults() -> Config:
    """Settings chosen on Ranvier Digits, for fewer epochs than there, since this set has twice the recordings.

    They are written out and not taken from ``digits.py``, so that the figures of this set stay what they are when the
    demo's settings change.
    """
    config = Config(experiment="fsdd")
    data, augment, model, training = config.data, config.augment, config.model, config.training
    data.source, data.train, data.validation_speakers = "files", [str(cache_folder() / "fsdd.h5")], 0
    data.dt, data.window, data.relative, data.channel_factor = 10.0, 150.0, True, 10
    augment.channel_shift, augment.channel_warp, augment.channel_bend, augment.channel_mask = 8, 0.08, 0.02, 7
    augment.drop, augment.channel_fade = 0.3, 0.7
    model.neuron, model.hidden, model.tau_mem, model.tau_adapt = "AdLIF", [512], [10.0, 60.0], [20.0, 150.0]
    model.surrogate_width, model.norm_gain, model.norm_bias, model.recurrent_gain = 0.4, 2.0, 1.5, 1.0
    model.dropout, model.input_dropout, model.recurrent_dropout = 0.1, 0.05, 0.1
    model.readout, model.tau_readout, model.learn_tau_readout, model.readout_bias = "mean", 20.0, False, True
    training.epochs, training.lr, training.weight_decay, training.logit_scale = 80, 5e-3, 1e-3, 3.0
    training.rate_weight, training.rate_low, training.rate_high = 5.0, 0.15, 0.5
    return config


def prepare(config: Config) -> None:
    """Convert the 2,000 recordings with the inner-ear model into the file the defaults name, unless it is there
    already.

    The archive ``fsdd_8k_int16.npz`` is looked for in ``$RANVIER_SHARED/data/fsdd``, else beside the checkout in
    ``shared/data/fsdd``.
    """
    if config.data.train != defaults().data.train:
        return
    root = Path(os.environ.get("RANVIER_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    convert_fsdd(root / "data" / "fsdd" / "fsdd_8k_int16.npz", config.data.train[0])


def folds(config: Config) -> list[int]:
    """The speakers, each of whom is left out once. Raises :class:`DataError` for fewer than two."""
    speakers = np.unique(source(config, "all").speakers)
    if len(speakers) < 2:
        raise DataError(f"leaving a speaker out needs at least two; {', '.join(config.data.train)} has {len(speakers)}")
    return [int(s) for s in speakers]


def sweep(
    config: Config, folder: Path, console: Console, overwrite: bool = False, seeds: int = SEEDS
) -> dict[str, Any]:
    """Train every fold with every seed into ``folder``; ``results.json`` grows with each one finished, and a killed
    sweep goes on where it was.

    ``config.data.test_speakers``, if given, limits the folds, and ``config.training.seed`` is the first seed.

    Returns:
        What ``results.json`` holds: ``runs`` (``speaker``, ``seed``, ``accuracy``, ``epochs``, ``params``,
        ``samples`` each), ``mean`` and ``sd`` of the seeds' means over folds, ``per_speaker`` means.
    """
    overwrite = overwrite and not is_helper()
    path = folder / RESULTS_FILE
    first = config.training.seed
    with locked(folder):
        runs: list[dict[str, Any]] = [] if overwrite or not path.exists() else read_json(path)["runs"]
        done = {(r["speaker"], r["seed"]) for r in runs}
        for seed in range(first, first + seeds):
            for speaker in config.data.test_speakers or folds(config):
                one = copy.deepcopy(config)
                one.data.test_speakers, one.training.seed = [speaker], seed
                place = folder / f"speaker{speaker}-seed{seed}"
                if (speaker, seed) in done and not _changed(one, place):
                    continue
                metrics = train(one, place, console, overwrite)
                runs = [r for r in runs if (r["speaker"], r["seed"]) != (speaker, seed)]
                runs.append(
                    {"speaker": speaker, "seed": seed}
                    | {k: metrics[k] for k in ("accuracy", "epochs", "params", "samples")}
                )
                write_json(path, summary(runs))
                console.print(
                    f"speaker {speaker}, seed {seed}: {100 * metrics['accuracy']:.1f} %   ({len(runs)} runs done)"
                )
    return summary(runs)


def _changed(config: Config, place: Path) -> bool:
    from .config import load_config

    return bool(differences(load_config(place), config))


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over folds and their spread over seeds, from the runs of finished folds."""
    seeds, speakers = sorted({r["seed"] for r in runs}), sorted({r["speaker"] for r in runs})
    means = [float(np.mean([r["accuracy"] for r in runs if r["seed"] == s])) for s in seeds]
    per_speaker = {str(k): float(np.mean([r["accuracy"] for r in runs if r["speaker"] == k])) for k in speakers}
    return {
        "mean": float(np.mean(means)),
        "sd": float(np.std(means, ddof=1)) if len(means) > 1 else None,
        "seeds": len(seeds),
        "per_speaker": per_speaker,
        "runs": runs,
    }


def _run(config: Config, folder: Path, console: Console, overwrite: bool) -> None:
    prepare(config)
    found = sweep(config, folder, console, overwrite)
    table = Table("speaker left out", "accuracy", title="FSDD, one speaker left out")
    for speaker, value in found["per_speaker"].items():
        table.add_row(speaker, f"{100 * value:.1f} %")
    spread = "" if found["sd"] is None else f" ± {100 * found['sd']:.1f}"
    table.add_row("mean", f"{100 * found['mean']:.1f}{spread} % ({found['seeds']} seeds)")
    console.print(table)


EXPERIMENT = Experiment(
    "fsdd", "Free Spoken Digit Dataset, one speaker left out, every fold with 5 seeds", defaults, _run
)
