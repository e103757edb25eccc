"""Activity recognition on the wrist, by people who were not trained on.

Every subject is in the test of one of five folds. Nothing is chosen on them: the candidates below were written down
before any was run on these recordings, and every fold chooses among them, per model, on three of its own training
subjects. (The learning rate was lowered once, by the training loss of choices that had come apart.) The weights kept
are those of the last epoch. Beside the Legendre memory unit: ridge classifiers on the same windows, chosen in the same
way, and a recurrent LIF network of equally many parameters.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from ..datasets import leave_groups_out
from ..datasets.ridge import predict, predict_linear
from ..errors import RunError
from ..networks import load_network
from .config import Config, differences, load_config, override, save_config
from .evaluation import Evaluation, evaluate
from .experiment import Experiment
from .har_data import SensorSplit, load_test, load_training, windows_of
from .har_model import build_har, recurrent_twin
from .runs import METRICS_FILE, is_helper, locked, open_run, read_json, write_json
from .selection import Candidate, check
from .spike_costs import spike_costs

RESULTS_FILE = "results.json"
FOLDS, SEEDS, INNER_SUBJECTS = 5, 5, 3
FOLD_SEED = 0
MODELS = ("l2mu", "recurrent")
KEPT = (
    "accuracy",
    "macro_f1",
    "recording_accuracy",
    "params",
    "samples",
    "epochs",
    "spikes_per_sample",
    "costs",
)
"""Of a run's metrics, what ``results.json`` keeps."""
COSTED = 256
"""Test windows on which operations are counted."""


@dataclass(frozen=True)
class Ridge:
    """Settings of a ridge classifier."""

    name: str
    alpha: float
    standardize: bool = True
    linear: bool = False


RIDGES = {
    "kernel ridge": tuple(
        Ridge(f"alpha {a:g}{', one deviation' if s else ''}", a, s) for a in (0.1, 0.3, 1.0) for s in (False, True)
    ),
    "linear ridge": tuple(Ridge(f"alpha {a:g}", a, linear=True) for a in (1.0, 10.0, 100.0, 1000.0)),
}

#: Settings that each fold chooses among; of equals the first.
CANDIDATES = (
    Candidate("turned", "another wearing of the watch", ("rotation=10", "sensor_gain=0.1", "sensor_noise=0.1")),
    Candidate("straight", "less, since which way is down says much", ("rotation=3", "sensor_noise=0.05")),
)


def defaults() -> Config:
    """sp-sw-har, windows of 2 s at 20 Hz."""
    config = Config(experiment="har")
    data, model, training = config.data, config.model, config.training
    data.source, data.dt, data.window, data.stride, data.validation_speakers = "spsw", 50.0, 2000.0, 500.0, 0
    config.augment.time_later = config.augment.time_earlier = 250.0
    model.block, model.neuron, model.hidden = "l2mu", "LIF", [128]
    model.channels, model.order, model.theta, model.copies = 6, 6, 1000.0, 4
    model.tau_mem, model.tau_readout, model.readout = [50.0, 400.0], 100.0, "mean"
    model.surrogate_width, model.dropout = 0.4, 0.1
    training.epochs, training.batch_size, training.lr, training.logit_scale = 40, 128, 3e-3, 3.0
    training.clip, training.weight_decay = 0.5, 0.1
    return config


def train_one(config: Config, folder: Path, console: Console, overwrite: bool = False) -> dict[str, Any]:
    """Train the network of ``config`` into ``folder``, or resume what is there, and test it once.

    Returns:
        What is written to ``metrics.json``: ``experiment``, ``epochs``, ``params``, ``samples``, ``accuracy``,
        ``macro_f1``, ``spikes_per_sample``, ``seconds`` and ``costs`` (see ``SpikeCosts``), over the test windows; and
        ``recording_accuracy``, see :func:`recording_accuracy`.

    Raises:
        RunError: the folder holds another run or is in use, or the loss is not finite.
    """
    from .training import fit  # Lightning takes seconds to import

    with locked(folder):
        state = "unfinished" if is_helper() else open_run(folder, config, overwrite)
        if state == "finished":
            return read_json(folder / METRICS_FILE)
        training, validation = load_training(config)
        net = build_har(config, training.channels, len(training.classes))
        trained = fit(config, net, training, validation, folder, console)
        if is_helper():
            raise SystemExit(0)
        kept, test = load_network(folder), load_test(config)
        found = evaluate(kept, test, console)
        rows = np.linspace(0, len(test) - 1, min(COSTED, len(test))).astype(int)
        metrics = {
            "experiment": config.experiment,
            "epochs": trained.epochs,
            "params": net.count_parameters(),
            "train_samples": len(training),
            "samples": len(test),
            **scores(found),
            "recording_accuracy": recording_accuracy(found, test),
            "spikes_per_sample": found.spikes_per_sample,
            "seconds": round(trained.seconds, 1),
            "costs": spike_costs(kept, test.batch(rows).counts).to_dict(),
        }
        write_json(folder / METRICS_FILE, metrics)
    return metrics


def scores(found: Evaluation) -> dict[str, float]:
    """``accuracy`` and ``macro_f1``."""
    return {"accuracy": found.accuracy, "macro_f1": found.macro_f1}


def recording_accuracy(found: Evaluation, split: SensorSplit) -> float | None:
    """The share of whole recordings whose mean readout over their windows has the right class; None where a recording
    has windows of several classes.
    """
    recordings = split.windows.recordings
    parts = [recordings == r for r in np.unique(recordings)]
    if any(len(set(found.labels[part].tolist())) > 1 for part in parts):
        return None
    return float(np.mean([found.outputs[part].mean(0).argmax() == found.labels[part][0] for part in parts]))


def fold_subjects(config: Config) -> list[list[int]]:
    """The subjects held out in each fold; they depend on the data alone."""
    subjects = windows_of(config.data).subjects
    return [
        [int(s) for s in np.unique(subjects[f.test])]
        for f in leave_groups_out(subjects, min(FOLDS, len(np.unique(subjects))), FOLD_SEED)
    ]


def inner_subjects(config: Config, test: Sequence[int], fold: int) -> list[int]:
    """The training subjects on whom a fold chooses: three, drawn by the fold's number."""
    left = np.setdiff1d(np.unique(windows_of(config.data).subjects), test)
    number = min(INNER_SUBJECTS, len(left) - 1)
    return sorted(int(s) for s in np.random.default_rng([FOLD_SEED, fold]).permutation(left)[:number])


def fold_config(config: Config, test: Sequence[int], excluded: Sequence[int] = ()) -> Config:
    """``config`` tested on the subjects ``test``; those of ``excluded`` are used for nothing."""
    made = copy.deepcopy(config)
    made.data.test_speakers, made.data.excluded_speakers = sorted(test), sorted(excluded)
    return made


def of_model(config: Config, model: str) -> Config:
    """``config`` for the model ``l2mu``, or ``recurrent`` with equally many parameters."""
    if model == "l2mu":
        return config
    windows = windows_of(config.data)
    return recurrent_twin(config, len(windows.axes), len(windows.classes))


def ridge_scores(config: Config, test: Sequence[int], inner: Sequence[int]) -> dict[str, Any]:
    """Accuracy and macro-F1 of the ridge classifiers on the subjects ``test``, by kind.

    Their penalty, and whether each feature is brought to one deviation, are chosen on the training subjects ``inner``.
    """
    choice = _sides(fold_config(config, inner, test))
    whole = _sides(fold_config(config, test))
    return {
        name: {"chosen": kind.name, **_ridge(whole, kind)}
        for name, kinds in RIDGES.items()
        for kind in [max(kinds, key=lambda k: sum(_ridge(choice, k).values()))]
    }


def _sides(config: Config) -> tuple[SensorSplit, SensorSplit]:
    return load_training(config)[0], load_test(config)


def _ridge(sides: tuple[SensorSplit, SensorSplit], kind: Ridge) -> dict[str, float]:
    train, test = sides
    x, y, x_test = train.flat, train.labels, test.flat
    if kind.linear:
        said = predict_linear(x, y, x_test, alpha=kind.alpha)
    else:
        said = predict(x, y, x_test, alpha=kind.alpha, standardize=kind.standardize)
    return scores(Evaluation(test.labels, said, np.zeros((0, 0)), test.classes))


def sweep(
    config: Config,
    folder: Path,
    console: Console,
    overwrite: bool = False,
    seeds: int = SEEDS,
    candidates: Sequence[Candidate] = CANDIDATES,
    models: Sequence[str] = MODELS,
) -> dict[str, Any]:
    """Ridge on every fold; then for every fold and model the choice and ``seeds`` trainings, into ``folder``.

    ``results.json`` grows with each training finished, and a killed sweep goes on where it was. A single candidate
    needs no choice.

    Returns:
        What ``results.json`` holds: ``folds`` (subjects), ``candidates``, ``ridge`` (by fold), ``choice`` (``fold``,
        ``model``, ``candidate``, ``accuracy``, ``macro_f1`` on inner subjects), ``chosen`` (by fold and model),
        ``runs`` (``fold``, ``model``, ``seed``, scores and costs) and ``summary`` by model.
    """
    check(candidates)
    overwrite = overwrite and not is_helper()
    path = folder / RESULTS_FILE
    with locked(folder):
        kept: dict[str, Any] = {} if overwrite or not path.exists() else read_json(path)
        named = {c.name: list(c.settings) for c in candidates}
        if kept and (kept.get("candidates") != named or differences(load_config(folder), config)):
            raise RunError(f"{path} has other candidates or settings; choose another folder, or --overwrite")
        save_config(config, folder)
        folds = fold_subjects(config)
        found: dict[str, Any] = {
            "folds": folds,
            "classes": list(windows_of(config.data).classes),
            "windows": len(windows_of(config.data)),
            "candidates": named,
            "ridge": kept.get("ridge", []),
            "choice": kept.get("choice", []),
            "chosen": {},
            "runs": kept.get("runs", []),
        }

        def save() -> None:
            write_json(path, found | {"summary": summary(found)})

        for fold in range(len(found["ridge"]), len(folds)):
            with console.status(f"ridge, fold {fold}"):
                inner = inner_subjects(config, folds[fold], fold)
                found["ridge"].append(ridge_scores(config, folds[fold], inner))
            save()
        total = len(folds) * len(models) * (len(candidates) if len(candidates) > 1 else 0)
        for fold, test in enumerate(folds):
            for model in models:
                found["chosen"][f"{fold}/{model}"] = candidates[0].name
                if len(candidates) == 1:
                    continue
                for candidate in candidates:
                    key = {"fold": fold, "model": model, "candidate": candidate.name}
                    if any(key.items() <= c.items() for c in found["choice"]):
                        continue
                    one = of_model(override(config, candidate.settings), model)
                    one = fold_config(one, inner_subjects(config, test, fold), test)
                    place = folder / "choice" / f"fold{fold}-{model}-{candidate.name}"
                    metrics = train_one(one, place, console, overwrite)
                    found["choice"].append(key | {k: metrics[k] for k in ("accuracy", "macro_f1")})
                    save()
                    console.print(f"choice {len(found['choice'])}/{total}: {key} {100 * metrics['accuracy']:.1f} %")
                own = [c for c in found["choice"] if (c["fold"], c["model"]) == (fold, model)]
                best = max(own, key=lambda c: c["accuracy"] + c["macro_f1"])
                found["chosen"][f"{fold}/{model}"] = best["candidate"]
        by_name = {c.name: c for c in candidates}
        total = seeds * len(folds) * len(models)
        for seed in range(config.training.seed, config.training.seed + seeds):
            for fold, test in enumerate(folds):
                for model in models:
                    key = {"fold": fold, "model": model, "seed": seed}
                    if any(key.items() <= r.items() for r in found["runs"]):
                        continue
                    candidate = by_name[found["chosen"][f"{fold}/{model}"]]
                    one = fold_config(of_model(override(config, candidate.settings), model), test)
                    one.training.seed = seed
                    metrics = train_one(one, folder / f"fold{fold}-{model}-seed{seed}", console, overwrite)
                    found["runs"].append(key | {k: metrics.get(k) for k in KEPT})
                    save()
                    console.print(
                        f"run {len(found['runs'])}/{total}: fold {fold}, {model}, seed {seed}, {candidate.name}: "
                        f"{100 * metrics['accuracy']:.1f} %, macro-F1 {metrics['macro_f1']:.3f}"
                    )
        save()
    return found | {"summary": summary(found)}


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """By model: the mean over folds of ``accuracy``, ``macro_f1`` and, where there is one, ``recording_accuracy``, its
    standard deviation over seeds, and mean costs.
    """
    table: dict[str, Any] = {}
    for name in RIDGES if found["ridge"] else ():
        table[name] = {k: float(np.mean([f[name][k] for f in found["ridge"]])) for k in ("accuracy", "macro_f1")}
    for model in dict.fromkeys(r["model"] for r in found["runs"]):
        runs = [r for r in found["runs"] if r["model"] == model]
        seeds = sorted({r["seed"] for r in runs})
        whole = [s for s in seeds if sum(r["seed"] == s for r in runs) == len(found["folds"])]
        entry: dict[str, Any] = {"seeds": len(whole), "params": float(np.mean([r["params"] for r in runs]))}
        for k in ("accuracy", "macro_f1", "recording_accuracy"):
            if any(r.get(k) is None for r in runs):
                continue
            means = [float(np.mean([r[k] for r in runs if r["seed"] == s])) for s in whole]
            entry[k] = float(np.mean(means)) if means else None
            entry[f"{k}_sd"] = float(np.std(means, ddof=1)) if len(means) > 1 else None
        entry["costs"] = {k: float(np.mean([r["costs"][k] for r in runs])) for k in runs[0]["costs"]}
        table[model] = entry
    return table


def show(found: dict[str, Any], folder: Path, console: Console) -> None:
    """What :func:`sweep` gave, as a table."""
    head = ("", "accuracy", "macro-F1", "whole recordings", "parameters", "spikes a window")
    table = Table(*head, title="People held out, mean of folds")
    for name, s in found["summary"].items():
        costs = s.get("costs", {})
        table.add_row(
            name,
            f"{s['accuracy']:.3f} ± {s.get('accuracy_sd') or 0:.3f}",
            f"{s['macro_f1']:.3f} ± {s.get('macro_f1_sd') or 0:.3f}",
            f"{s['recording_accuracy']:.3f} ± {s['recording_accuracy_sd'] or 0:.3f}"
            if "recording_accuracy" in s
            else "",
            f"{s['params']:.0f}" if "params" in s else "",
            f"{costs['spikes']:.0f}" if costs else "",
        )
    console.print(table, f"{folder / RESULTS_FILE}", sep="\n")


def _run(config: Config, folder: Path, console: Console, overwrite: bool) -> None:
    show(sweep(config, folder, console, overwrite), folder, console)


EXPERIMENT = Experiment(
    "har", "activities from smartwatch signals, people held out: L2MU, recurrent LIF, ridge", defaults, _run
)
