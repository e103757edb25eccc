"""Hyper-parameter search: ``ranvier sweep NAME``, by Optuna, on subjects of whom none is in the test of its fold.

The subjects of one outer fold are put aside and used for nothing. A trial draws settings and is judged on the others in
turn, in inner folds; after each, a trial that is worse than the median of those before it is pruned. Every result is in
the data base as soon as it is known, so that a killed search goes on and several machines can share one by its address.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from ..datasets import leave_groups_out
from ..errors import ConfigError, RunError
from ..files import atomic_path
from .callbacks import progress
from .config import Config, differences, load_config, override, save_config
from .har import FOLD_SEED, fold_config, fold_subjects, train_one
from .har_data import windows_of
from .runs import CONFIG_FILE, write_json

if TYPE_CHECKING:
    import optuna

INNER_FOLDS = 3
RESULTS_FILE, DATABASE, PICTURE = "sweep.json", "sweep.db", "sweep.svg"
STARTUP_TRIALS = 8
MOST_FAILURES = 10  # in a row, before a search gives up
HEARTBEAT_S = 60


@dataclass(frozen=True)
class Range:
    """One setting that is searched: between ``low`` and ``high`` (whole numbers if both are), or among ``choices``.

    Attributes:
        key: as on the command line. text: how a value is written there, such as ``[{}]``.
    """

    key: str
    low: float = 0
    high: float = 0
    log: bool = False
    choices: tuple[Any, ...] = ()
    text: str = "{}"

    def draw(self, trial: optuna.trial.BaseTrial) -> str:
        """A ``key=value`` pair of the trial's choosing."""
        if self.choices:
            value = trial.suggest_categorical(self.key, list(self.choices))
        elif isinstance(self.low, int) and isinstance(self.high, int):
            value = trial.suggest_int(self.key, self.low, self.high, log=self.log)
        else:
            value = trial.suggest_float(self.key, self.low, self.high, log=self.log)
        return f"{self.key}={self.text.format(value)}"


#: What is searched, by experiment.
SPACES: dict[str, tuple[Range, ...]] = {
    "har": (
        Range("training.lr", 1e-3, 2e-2, log=True),
        Range("model.hidden", 32, 192, log=True, text="[{}]"),
        Range("model.channels", 2, 16),
        Range("model.order", 2, 10),
        Range("model.theta", 300.0, 4000.0, log=True),
        Range("model.copies", choices=(1, 2, 4)),
        Range("model.tau_readout", 25.0, 800.0, log=True),
        Range("model.surrogate_width", 0.1, 1.5, log=True),
        Range("model.dropout", 0.0, 0.4),
        Range("augment.rotation", 0.0, 20.0),
        Range("augment.sensor_noise", 0.0, 0.3),
    )
}


def sweep(
    config: Config,
    folder: Path,
    trials: int,
    console: Console,
    *,
    storage: str | None = None,
    fold: int = 0,
    space: Sequence[Range] | None = None,
    keep: bool = False,
) -> dict[str, Any]:
    """Search until the data base holds ``trials`` finished or pruned trials.

    Args:
        config: what is not searched.
        folder: for ``sweep.json``, ``sweep.svg``, the default data base and the trainings of trials.
        storage: address of a data base, such as ``postgresql://user@host/name``; by default SQLite in ``folder``.
        fold: the outer fold whose subjects are put aside.
        space: what is searched; by default ``SPACES``.
        keep: keep the run folders of trials.

    Returns:
        What ``sweep.json`` holds: ``fold``, ``put_aside`` (subjects), ``best`` (``value``, ``settings``),
        ``importance`` by setting (of PED-ANOVA; empty below two finished trials), ``trials`` (``number``, ``state``,
        ``value``, ``settings``, ``scores`` of inner folds).

    Raises:
        ConfigError: Optuna is not installed, nothing is known to search in this experiment, a fold or number out of
            range, or a storage that cannot be opened.
        RunError: ``folder`` or the storage holds a search of other settings, or no trial finished, or ten trials in a
            row failed.
    """
    optuna = _optuna()
    ranges = tuple(SPACES.get(config.experiment, ()) if space is None else space)
    if not ranges:
        raise ConfigError(f"nothing is known to search in {config.experiment!r}; there is {', '.join(SPACES)}")
    if trials < 1:
        raise ConfigError(f"trials must be at least 1, got {trials}")
    folds = fold_subjects(config)
    if not 0 <= fold < len(folds):
        raise ConfigError(f"fold must be 0 to {len(folds) - 1}, got {fold}")
    override(config, [r.draw(optuna.trial.FixedTrial(_middle(ranges))) for r in ranges])  # an unknown key shows now
    if (folder / CONFIG_FILE).is_file() and (other := differences(load_config(folder), config)):
        raise RunError(f"{folder} holds a search with other settings ({'; '.join(other[:4])}); choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    about = {"fold": fold, "put_aside": folds[fold], "space": [repr(r) for r in ranges]}
    study = _study(optuna, storage or f"sqlite:///{(folder / DATABASE).absolute()}", config.experiment, about)
    save_config(config, folder)
    ended = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    with progress(console) as bar:
        task = bar.add_task("Trials", total=trials, completed=len(study.get_trials(False, ended)), note="")

        def say(what: str) -> None:
            bar.update(task, description=what)

        def after(study: Any, trial: Any) -> None:
            done = len(study.get_trials(False, ended))
            bar.update(task, completed=done)
            found = _found(optuna, study, about)
            write_json(folder / RESULTS_FILE, found)
            console.print(f"Trial {trial.number}: {_in_words(trial)}{_best_so_far(found)}", highlight=False)
            if done >= trials or _failures(study) >= MOST_FAILURES:
                study.stop()

        if len(study.get_trials(False, ended)) < trials:
            objective = _objective(config, folder, folds[fold], ranges, keep, say)
            study.optimize(objective, callbacks=[after], catch=(RunError,))
    found = _found(optuna, study, about)
    write_json(folder / RESULTS_FILE, found)
    if len(study.get_trials(False, ended)) < trials and (failed := _failures(study)) >= MOST_FAILURES:
        raise RunError(f"{folder}: the last {failed} trials failed ({_error(study.get_trials(False)[-1])})")
    if found["best"] is None:
        raise RunError(f"{folder}: no trial finished; look at {RESULTS_FILE}")
    _picture(found, folder / PICTURE)
    return found


def _objective(
    config: Config,
    folder: Path,
    put_aside: Sequence[int],
    ranges: Sequence[Range],
    keep: bool,
    say: Callable[[str], None],
) -> Callable[[Any], float]:
    optuna = _optuna()
    subjects = windows_of(config.data).subjects
    subjects = subjects[~np.isin(subjects, put_aside)]
    number = min(INNER_FOLDS, len(np.unique(subjects)))
    inner = [np.unique(subjects[f.test]).tolist() for f in leave_groups_out(subjects, number, FOLD_SEED)]

    def objective(trial: Any) -> float:
        made = override(config, [r.draw(trial) for r in ranges])
        scores: list[float] = []
        for step, tested in enumerate(inner):
            place = folder / "trials" / f"{trial.number}-{step}"
            say(f"Trial {trial.number}, part {step + 1} of {len(inner)}")
            try:
                metrics = train_one(fold_config(made, tested, put_aside), place, Console(quiet=True))
            except RunError as error:
                trial.set_user_attr("error", str(error))
                raise
            finally:
                if not keep:
                    shutil.rmtree(place, ignore_errors=True)
            scores.append((metrics["accuracy"] + metrics["macro_f1"]) / 2)
            trial.set_user_attr("scores", scores)
            trial.report(float(np.mean(scores)), step)
            if step + 1 < len(inner) and trial.should_prune():
                raise optuna.TrialPruned
        return float(np.mean(scores))

    return objective


def _study(optuna: Any, storage: str, name: str, about: dict[str, Any]) -> Any:
    """The study of this name in the data base; a trial whose machine has died is tried again."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # heartbeats are called experimental
            opened = optuna.storages.RDBStorage(
                storage,
                heartbeat_interval=HEARTBEAT_S,
                heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=2),
            )
        study = optuna.create_study(
            storage=opened,
            study_name=name,
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS),
        )
    except Exception as error:  # SQLAlchemy's and the driver's are many
        raise ConfigError(f"the storage {storage} cannot be opened ({str(error).splitlines()[0]})") from error
    # a resumed search must not draw the first trials again
    study.sampler = optuna.samplers.TPESampler(seed=len(study.get_trials(False)), n_startup_trials=STARTUP_TRIALS)
    for key, value in about.items():
        known = study.user_attrs.get(key, value)
        if known != value:
            raise RunError(f"the storage {storage} holds a search with another {key}: {known}")
        study.set_user_attr(key, value)
    return study


def _in_words(trial: Any) -> str:
    if trial.state.name == "PRUNED":
        scores = trial.user_attrs["scores"]
        return f"{np.mean(scores):.3f}, given up after {len(scores)} of its parts"
    return f"{trial.value:.3f}" if trial.value is not None else f"failed ({_error(trial)})"


def _best_so_far(found: dict[str, Any]) -> str:
    best = found["best"]
    return "" if best is None else f"; best {best['value']:.3f} of trial {best['number']}"


def _error(trial: Any) -> str:
    return trial.user_attrs.get("error", "for a reason that is not known")


def _failures(study: Any) -> int:
    """How many of the last trials failed, one after the other."""
    states = [t.state.name for t in study.get_trials(False) if t.state.is_finished()]
    return next((i for i, state in enumerate(reversed(states)) if state != "FAIL"), len(states))


def _found(optuna: Any, study: Any, about: dict[str, Any]) -> dict[str, Any]:
    done = [t for t in study.get_trials(False) if t.value is not None and t.state.name == "COMPLETE"]
    best = max(done, key=lambda t: t.value, default=None)
    return {
        "fold": about["fold"],
        "put_aside": about["put_aside"],
        "best": None if best is None else {"number": best.number, "value": best.value, "settings": best.params},
        "importance": _importance(optuna, study) if len(done) > 1 else {},
        "trials": [
            {
                "number": t.number,
                "state": t.state.name.lower(),
                "value": t.value,
                "settings": t.params,
                "scores": t.user_attrs.get("scores", []),
            }
            for t in study.get_trials(False)
        ],
    }


def _importance(optuna: Any, study: Any) -> dict[str, float]:
    """How much each setting tells good trials from the rest, 0 to 1. [Watanabe, Bansal, Hutter 2023, PED-ANOVA]"""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is called experimental
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        try:
            found = optuna.importance.get_param_importances(study, evaluator=evaluator)
        except (ValueError, RuntimeError):  # too few trials, or all alike
            return {}
    return {k: float(v) for k, v in found.items() if np.isfinite(v)}


def _picture(found: dict[str, Any], path: Path) -> None:
    """What mattered, and how the best grew."""
    from matplotlib.figure import Figure

    figure = Figure((9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = list(found["importance"])[::-1]
    left.barh(names, [found["importance"][n] for n in names], color="#0072B2")
    left.set_xlabel("importance")
    done = [t for t in found["trials"] if t["state"] == "complete"]
    pruned = [t for t in found["trials"] if t["state"] == "pruned"]
    right.plot([t["number"] for t in done], [t["value"] for t in done], "o", color="#0072B2", label="finished")
    cut = [t for t in pruned if t["scores"]]
    right.plot([t["number"] for t in cut], [np.mean(t["scores"]) for t in cut], "x", color="#D55E00", label="pruned")
    right.plot(
        [t["number"] for t in done], np.maximum.accumulate([t["value"] for t in done]), color="#222222", label="best"
    )
    right.set_xlabel("trial")
    right.set_ylabel("(accuracy + macro-F1) / 2")
    right.legend(frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary)


def as_settings(best: dict[str, Any], space: Sequence[Range]) -> list[str]:
    """The best trial's settings as ``key=value`` pairs for ``ranvier train``."""
    text = {r.key: r.text for r in space}
    return [
        f"{k}={text.get(k, '{}').format(f'{v:.4g}' if isinstance(v, float) else v)}"
        for k, v in best["settings"].items()
    ]


def run_sweep(
    config: Config, pairs: Sequence[str], folder: Path, trials: int, console: Console, storage: str | None, fold: int
) -> str:
    """:func:`sweep`, with its result as the command that trains with the best settings."""
    given = override(config, pairs)
    keys = {pair.partition("=")[0].strip() for pair in pairs}  # whole, or the last part where it names one setting
    known = SPACES.get(config.experiment, ())
    space = [r for r in known if not keys & {r.key, r.key.rpartition(".")[2]}]
    if known and not space:
        raise ConfigError("every setting that could be searched is given; leave out at least one of them")
    found = sweep(given, folder, trials, console, storage=storage, fold=fold, space=space)
    best = " ".join([*pairs, *as_settings(found["best"], space)])
    ended = sum(t["state"] in ("complete", "pruned") for t in found["trials"])
    return (
        f"Best of {ended} trials on inner people: {found['best']['value']:.3f}; {folder / PICTURE}\n"
        f"ranvier train {config.experiment} {best}"
    )


def _middle(ranges: Sequence[Range]) -> dict[str, Any]:
    return {r.key: r.choices[0] if r.choices else r.low for r in ranges}


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ConfigError("ranvier sweep needs Optuna: pip install 'ranvier[sweep]'") from error
    return optuna
