"""Free Spoken Digit Dataset, one speaker left out: every speaker is the test set of one fold, and every fold is
trained with several seeds.

Every fold chooses among the candidates below on its own three speakers (see ``selection``); the speaker left out has no
say in it. The weights kept are those of the last epoch. How the candidates came to be is told in
``docs/experiments/fsdd.md``.
[https://github.com/Jakobovski/free-spoken-digit-dataset]
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from ..datasets.fsdd import convert_fsdd
from ..errors import DataError, RunError
from ..files import cache_folder
from .config import Config, differences, load_config
from .counts import source
from .experiment import Experiment, train
from .runs import is_helper, locked, read_json, write_json
from .selection import Candidate, check, choose, judge, score, trained

RESULTS_FILE = "results.json"
SEEDS = 5

_LOUD = ("augment.gain=1", "augment.channel_tilt=1")
_COARSE = ("data.channel_factor=20", "augment.channel_shift=2", "augment.channel_mask=7")
_ADLIF = ("model.neuron=AdLIF", "model.norm_gain=2.0", "model.norm_bias=1.5", "model.recurrent_gain=1.0")
# In the order of their importance; of equals the first is chosen.
CANDIDATES = (
    Candidate("lif", "fewer states than AdLIF, so less to fit to three voices"),
    Candidate("lif-loud", "loudness and timbre vary twice as much", _LOUD),
    Candidate("lif-coarse", "35 channels, as the kernel ridge has", _COARSE),
    Candidate("adlif", "the neuron of Ranvier Digits", _ADLIF),
)


def defaults() -> Config:
    """The recipe of Ranvier Digits with LIF, a microphone's colour taken out, fewer neurons and fewer epochs.

    Written out and not taken from ``digits.py``, so that the figures of this set stay what they are when the demo's
    settings change.
    """
    config = Config(experiment="fsdd")
    data, augment, model, training = config.data, config.augment, config.model, config.training
    data.source, data.train, data.validation_speakers = "files", [str(cache_folder() / "fsdd.h5")], 0
    data.dt, data.window, data.relative, data.channel_factor = 10.0, 150.0, True, 10
    data.compress, data.equalise = 2.0, 0.5
    augment.channel_shift, augment.channel_warp, augment.channel_bend, augment.channel_mask = 5, 0.15, 0.05, 14
    augment.gain, augment.channel_tilt = 0.5, 0.5
    model.neuron, model.hidden, model.tau_mem, model.tau_adapt = "LIF", [256], [10.0, 60.0], [20.0, 150.0]
    model.surrogate_width, model.norm_gain, model.norm_bias, model.recurrent_gain = 0.4, 0.7, 0.5, 0.3
    model.dropout, model.input_dropout, model.recurrent_dropout = 0.1, 0.05, 0.1
    model.readout, model.tau_readout, model.learn_tau_readout, model.readout_bias = "mean", 20.0, False, True
    training.epochs, training.lr, training.weight_decay, training.logit_scale = 60, 5e-3, 1e-3, 3.0
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
    config: Config,
    folder: Path,
    console: Console,
    overwrite: bool = False,
    seeds: int = SEEDS,
    candidates: Sequence[Candidate] = CANDIDATES,
) -> dict[str, Any]:
    """Choose a candidate inside every fold, then train every fold with its choice and every seed, into ``folder``.

    ``results.json`` grows with each training finished, and a killed sweep goes on where it was. A single candidate
    needs no choice. ``config.data.test_speakers``, if given, limits the folds, and ``config.training.seed`` is the
    first seed, and that of the choice.

    Returns:
        What ``results.json`` holds: ``candidates`` (name to settings), ``choice`` (see ``selection.judge``),
        ``scores`` (by speaker left out, then by candidate), ``chosen`` (by speaker), ``runs`` (``speaker``, ``seed``,
        ``accuracy``, ``epochs``, ``params``, ``samples`` each), ``mean`` and ``sd`` of the seeds' means over folds,
        ``per_speaker`` and ``sd_per_speaker``.

    Raises:
        DataError: fewer than two speakers. ConfigError: fewer than three for a choice, or a wrong candidate.
        RunError: ``folder`` holds a sweep of other candidates.
    """
    overwrite = overwrite and not is_helper()
    check(candidates)
    path = folder / RESULTS_FILE
    with locked(folder):
        kept = {} if overwrite or not path.exists() else read_json(path)
        named = {c.name: list(c.settings) for c in candidates}
        if kept and kept.get("candidates") != named:
            raise RunError(f"{path} has other candidates; choose another folder with --run, or --overwrite")
        found: dict[str, Any] = {"candidates": named, "choice": kept.get("choice", [])}
        runs: list[dict[str, Any]] = kept.get("runs", [])
        speakers = folds(config)
        wanted = list(config.data.test_speakers) or speakers
        if len(candidates) > 1:

            def save(choice: list[dict[str, Any]]) -> None:
                found["choice"] = choice
                write_json(path, found | summary(runs))

            found["choice"] = judge(
                config,
                candidates,
                speakers,
                folder / "choice",
                console,
                folds=wanted,
                overwrite=overwrite,
                done=found["choice"],
                save=save,
            )
            found["scores"] = {str(f): {c.name: score(found["choice"], c.name, f) for c in candidates} for f in wanted}
        chosen = {f: choose(found["choice"], candidates, f) if len(candidates) > 1 else candidates[0] for f in wanted}
        found["chosen"] = {str(f): c.name for f, c in chosen.items()}
        done = {(r["speaker"], r["seed"]) for r in runs}
        for seed in range(config.training.seed, config.training.seed + seeds):
            for speaker in wanted:
                one = trained(config, chosen[speaker], [speaker])
                one.training.seed = seed
                place = folder / f"speaker{speaker}-seed{seed}"
                if (speaker, seed) in done and not _changed(one, place):
                    continue
                metrics = train(one, place, console, overwrite)
                runs = [r for r in runs if (r["speaker"], r["seed"]) != (speaker, seed)]
                runs.append(
                    {"speaker": speaker, "seed": seed}
                    | {k: metrics[k] for k in ("accuracy", "epochs", "params", "samples")}
                )
                write_json(path, found | summary(runs))
                console.print(
                    f"fold {len(runs)}/{seeds * len(wanted)}: speaker {speaker}, seed {seed}, "
                    f"{chosen[speaker].name}: {100 * metrics['accuracy']:.1f} %"
                )
    return found | summary(runs)


def _changed(config: Config, place: Path) -> bool:
    return bool(differences(load_config(place), config))


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over folds and their spread over seeds, from the runs of finished folds."""
    seeds, speakers = sorted({r["seed"] for r in runs}), sorted({r["speaker"] for r in runs})
    means = [float(np.mean([r["accuracy"] for r in runs if r["seed"] == s])) for s in seeds]
    by_speaker = {str(k): [r["accuracy"] for r in runs if r["speaker"] == k] for k in speakers}
    return {
        "mean": float(np.mean(means)) if means else None,
        "sd": _spread(means),
        "seeds": len(seeds),
        "per_speaker": {k: float(np.mean(v)) for k, v in by_speaker.items()},
        "sd_per_speaker": {k: _spread(v) for k, v in by_speaker.items()},
        "runs": runs,
    }


def _spread(values: list[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _run(config: Config, folder: Path, console: Console, overwrite: bool) -> None:
    prepare(config)
    found = sweep(config, folder, console, overwrite)
    table = Table("speaker left out", "chosen", "accuracy", title="FSDD, one speaker left out")
    for speaker, value in found["per_speaker"].items():
        table.add_row(speaker, found["chosen"][speaker], f"{100 * value:.1f} %")
    spread = "" if found["sd"] is None else f" ± {100 * found['sd']:.1f}"
    table.add_row("mean", "", f"{100 * found['mean']:.1f}{spread} % ({found['seeds']} seeds)")
    console.print(table)


EXPERIMENT = Experiment(
    "fsdd", "Free Spoken Digit Dataset, one speaker left out, every fold with 5 seeds", defaults, _run
)
