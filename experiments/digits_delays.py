"""What learned delays are worth at equal parameters: spoken digits by voices that were not trained on.

Recurrent LIF and AdLIF networks with and without axonal delays on their recurrent connection (and synaptic ones on that
from the input), of about 10,000, 40,000 and 200,000 parameters, on Ranvier Digits (held-out voices) and Free Spoken
Digits (one speaker left out). A word's duration is cut into 50 steps: in 15, as elsewhere, a delay has little to choose
from. The settings were chosen on training voices of Ranvier Digits. Delays are whole steps in all that is reported.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from ..errors import ConfigError, RunError
from . import digits, fsdd
from .config import Config, differences, load_config, override, save_config
from .data import load_training
from .experiment import Experiment, train
from .model import build_network
from .runs import is_helper, locked, read_json, write_json

RESULTS_FILE = "results.json"
SEEDS = 5
SIZES = {"10k": 10_000, "40k": 40_000, "200k": 200_000}
_DELAYS = ("model.delay_recurrent=axonal", "model.delay_max=60")
_LIF = ("model.neuron=LIF", "model.norm_gain=0.7", "model.norm_bias=0.5", "model.recurrent_gain=0.3")
_ADLIF = ("model.neuron=AdLIF",)
VARIANTS = {
    "lif": _LIF,
    "lif, learned delays": (*_LIF, *_DELAYS),
    "lif, learned delays of the input too": (*_LIF, *_DELAYS, "model.delay_input=synaptic"),
    "lif, fixed random delays": (*_LIF, *_DELAYS, "model.delay_learn=false"),
    "adlif": _ADLIF,
    "adlif, learned delays": (*_ADLIF, *_DELAYS),
}
_LEARNED = tuple(VARIANTS)[:3]
# set, size and variants, in the order of their importance; four folds of 1,500 words each take long
PLAN = (
    ("digits", "40k", tuple(VARIANTS)),
    ("fsdd", "40k", _LEARNED),
    ("digits", "10k", _LEARNED),
    ("digits", "200k", _LEARNED),
)


def defaults() -> Config:
    """The recipe of Ranvier Digits in 50 steps instead of 15, for fewer epochs."""
    config = digits.recipe(Config(experiment="digits-delays"))
    config.data.dt, config.data.validation_speakers = 3.0, 0
    config.training.epochs = 60
    return config


def of_set(config: Config, name: str) -> list[Config]:
    """The configurations of one set: one of Ranvier Digits, one for every speaker of Free Spoken Digits."""
    if name == "digits":
        return [config]
    made = copy.deepcopy(config)
    own = fsdd.defaults()
    made.data.source, made.data.train = own.data.source, own.data.train
    # twice the words, so as many steps of the optimiser
    made.data.equalise, made.training.epochs = own.data.equalise, max(1, config.training.epochs // 2)
    fsdd.prepare(own)
    folds = [copy.deepcopy(made) for _ in fsdd.folds(made)]
    for fold, speaker in zip(folds, fsdd.folds(made), strict=True):
        fold.data.test_speakers = [speaker]
    return folds


def fitted(config: Config, channels: int, classes: int, parameters: int) -> Config:
    """``config`` with the largest hidden population that keeps the network within ``parameters``.

    Raises:
        ConfigError: not even one neuron does.
    """

    def count(size: int) -> int:
        made = copy.deepcopy(config)
        made.model.hidden = [size]
        return build_network(made, channels, classes).count_parameters()

    low, high = 0, 1
    while count(high) <= parameters:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) <= parameters else (low, middle)
    if low == 0:
        raise ConfigError(f"{parameters} parameters are too few for one hidden neuron; it takes {count(1)}")
    made = copy.deepcopy(config)
    made.model.hidden = [low]
    return made


def sweep(
    config: Config,
    folder: Path,
    console: Console,
    overwrite: bool = False,
    *,
    seeds: int = SEEDS,
    plan: Sequence[tuple[str, str, Sequence[str]]] = PLAN,
    sizes: Mapping[str, int] = SIZES,
) -> dict[str, Any]:
    """Train what ``plan`` lists (set, size, variants), one after the other, with every seed and fold, into ``folder``.

    ``results.json`` grows with each training finished, and a killed sweep goes on where it was.

    Returns:
        What ``results.json`` holds: ``variants`` (their settings), ``runs`` (``size``, ``set``, ``variant``, ``fold``,
        ``seed``, ``accuracy``, ``params``, ``hidden``, ``spikes_per_sample``) and ``summary`` (see :func:`summary`).

    Raises:
        RunError: ``folder`` holds a sweep of other settings.
    """
    overwrite = overwrite and not is_helper()
    path = folder / RESULTS_FILE
    with locked(folder):
        kept: dict[str, Any] = {} if overwrite or not path.exists() else read_json(path)
        named = {name: list(settings) for name, settings in VARIANTS.items()}
        if kept and (kept.get("variants") != named or differences(load_config(folder), config)):
            raise RunError(f"{path} has other settings; choose another folder with --run, or --overwrite")
        save_config(config, folder)
        runs: list[dict[str, Any]] = kept.get("runs", [])
        for name, size, variants in plan:
            folds = of_set(config, name)
            training = load_training(folds[0])[0]
            for seed in range(config.training.seed, config.training.seed + seeds):
                for variant, fold in product(variants, range(len(folds))):
                    key = {"size": size, "set": name, "variant": variant, "fold": fold, "seed": seed}
                    if any(key.items() <= r.items() for r in runs):
                        continue
                    one = override(folds[fold], VARIANTS[variant])
                    one = fitted(one, training.channels, len(training.classes), sizes[size])
                    one.training.seed = seed
                    place = folder / f"{name}-{size}-{variant.replace(', ', '-').replace(' ', '-')}"
                    metrics = train(one, place / f"fold{fold}-seed{seed}", console, overwrite)
                    wanted = ("accuracy", "params", "spikes_per_sample", "epochs", "samples")
                    runs.append(key | {"hidden": one.model.hidden[0]} | {k: metrics[k] for k in wanted})
                    write_json(path, {"variants": named, "runs": runs, "summary": summary(runs)})
                    said = f"{size}, {name}, {variant}, fold {fold}, seed {seed}"
                    console.print(f"{said}: {100 * metrics['accuracy']:.1f} %")
    return {"variants": named, "runs": runs, "summary": summary(runs)}


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry for each size, set and variant: ``seeds`` that finished all folds, ``mean`` over them of the mean over
    folds, ``sd`` over them, ``params``, ``hidden``, ``spikes_per_sample``.
    """
    table = []
    for key in dict.fromkeys((r["size"], r["set"], r["variant"]) for r in runs):
        own = [r for r in runs if (r["size"], r["set"], r["variant"]) == key]
        folds = len({r["fold"] for r in runs if r["set"] == key[1]})
        by_seed = [[r["accuracy"] for r in own if r["seed"] == s] for s in sorted({r["seed"] for r in own})]
        means = [float(np.mean(a)) for a in by_seed if len(a) == folds]
        table.append(
            {
                "size": key[0],
                "set": key[1],
                "variant": key[2],
                "seeds": len(means),
                "mean": float(np.mean(means)) if means else None,
                "sd": float(np.std(means, ddof=1)) if len(means) > 1 else None,
                "params": own[0]["params"],
                "hidden": own[0]["hidden"],
                "spikes_per_sample": float(np.mean([r["spikes_per_sample"] for r in own])),
            }
        )
    return table


def _run(config: Config, folder: Path, console: Console, overwrite: bool) -> None:
    found = sweep(config, folder, console, overwrite)
    table = Table("set", "size", "network", "parameters", "accuracy", title="Learned delays at equal parameters")
    for s in found["summary"]:
        accuracy = f"{100 * s['mean']:.1f}" + ("" if s["sd"] is None else f" ± {100 * s['sd']:.1f}") + " %"
        table.add_row(s["set"], s["size"], s["variant"], f"{s['params']:,}", accuracy)
    console.print(table, f"{folder / RESULTS_FILE}", sep="\n")


EXPERIMENT = Experiment(
    "digits-delays", "spoken digits of unknown voices with and without learned delays, equal parameters", defaults, _run
)
