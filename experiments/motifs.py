"""Spiking motifs detected by heterogeneous delays (HD-SNN): known kernels and learned ones, beside plain correlation.

The model and its source are in ``motif_model``. Kernels and rasters are drawn by the seed; there is no data set.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ..errors import ConfigError
from ..files import atomic_path
from .config import Config, differences
from .experiment import Experiment
from .motif_model import (
    Setting,
    correlation_kernels,
    detect,
    draw_kernels,
    draw_onsets,
    draw_spikes,
    evidence,
    learn_kernels,
    recovery,
    strongest_taps,
    threshold,
)
from .runs import METRICS_FILE, locked, open_run, read_json, write_json

SEEDS = 5
RESULTS_FILE, PICTURE_FILE = "results.json", "motifs.png"
# What a user may set; the rest of a configuration says nothing about this experiment.
SETTINGS = ("training.seed", "training.epochs", "training.lr", "training.threads")
DETECTORS = {  # as in results.json, and in words
    "hdsnn": "HD-SNN: log-odds kernels",
    "learned": "HD-SNN, learned kernels",
    "carried": "HD-SNN, threshold of another raster",
    "single": "HD-SNN, one delay per pair (the strongest)",
    "corr": "correlation",
    "rate": "no delays (kernel averaged over them)",
    "wrong": "kernels of other motifs",
    "early": "kernels one step early",
    "late": "kernels one step late",
}
SCANS = {"neurons": (8, 16, 32, 64), "delays": (7, 15, 63), "motifs": (144, 610, 1364)}
SHOWN = 30  # motifs in the picture of similarities


def generator(seed: int, purpose: int) -> torch.Generator:
    """A stream of random numbers: one per seed, and per purpose (kernels, rasters, learning, ...) within it."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence([seed, purpose]).generate_state(1)[0]))


_KERNELS, _RASTERS, _LEARNING, _OTHERS, _EARLIER = range(5)


def compare(setting: Setting, seed: int, learned: Tensor | None = None, controls: bool = False) -> dict[str, Any]:
    """Every detector on the same rasters: HD-SNN and correlation, and with ``controls`` all of :data:`DETECTORS`.

    Returns:
        ``seed``, ``neurons``, ``delays``, ``motifs``, ``onsets`` (how many), ``hits`` (detector to true-positive rate),
        and with ``controls`` the ``precision`` of the carried threshold.
    """
    kernels = draw_kernels(setting, generator(seed, _KERNELS))
    rasters = generator(seed, _RASTERS)
    onsets = draw_onsets(setting, rasters)
    spikes = draw_spikes(setting, onsets, kernels, rasters)
    used = {"hdsnn": kernels, "corr": correlation_kernels(setting, kernels)}
    if learned is not None:
        used["learned"] = learned
    if controls:
        used["single"] = strongest_taps(kernels)
        used["rate"] = kernels.mean(2, keepdim=True).expand_as(kernels)
        used["wrong"] = draw_kernels(setting, generator(seed, _OTHERS))
        used["early"], used["late"] = kernels.roll(-1, 2), kernels.roll(1, 2)
    found = {name: detect(evidence(spikes, used[name]), onsets) for name in DETECTORS if name in used}
    more: dict[str, Any] = {}
    if controls:
        earlier = generator(seed, _EARLIER)
        other = draw_onsets(setting, earlier)
        heard = evidence(draw_spikes(setting, other, kernels, earlier), kernels)
        found["carried"] = f = detect(evidence(spikes, kernels), onsets, threshold(heard, int(other.sum())))
        more["precision"] = f.hits * f.onsets / max(1, f.detected)
    return {
        "seed": seed,
        **{name: getattr(setting, name) for name in SCANS},
        "onsets": found["hdsnn"].onsets,
        "hits": {name: f.hits for name, f in found.items()},
        **more,
    }


def defaults() -> Config:
    """A seed to begin with, and for learning the updates (one raster each) and Adam's rate, in ``training``."""
    config = Config(experiment="motifs")
    config.training.epochs, config.training.lr = 200, 0.2
    return config


def settings_of(config: Config) -> None:
    """Raise :class:`ConfigError` for a setting that would have no effect here."""
    for line in differences(defaults(), config):
        key = line.partition(":")[0]
        if key not in SETTINGS:
            raise ConfigError(
                f"setting {key} has no effect on the experiment motifs, which knows {', '.join(SETTINGS)}"
            )


def sweep(
    config: Config,
    folder: Path,
    console: Console,
    overwrite: bool = False,
    seeds: int = SEEDS,
    base: Setting | None = None,
    scans: Mapping[str, tuple[int, ...]] = SCANS,
) -> dict[str, Any]:
    """For every seed learn the kernels and compare the detectors, at ``base`` and at what ``scans`` sets one by one.

    ``results.json`` grows with every comparison, and a killed sweep goes on where it was; ``metrics.json`` and the
    picture are written at the end, the learned kernels of the first seed as ``kernels.npz``.

    Returns:
        What ``results.json`` holds: ``setting``, ``runs`` (see :func:`compare`; those at ``base`` also have
        ``recovery``), and of the runs at ``base`` ``mean`` and ``sd`` over seeds, by detector.

    Raises:
        ConfigError: a setting without effect. RunError: ``folder`` holds another run, or is in use.
    """
    from .callbacks import progress  # Lightning takes seconds to import

    settings_of(config)
    base = base or Setting()
    torch.set_num_threads(config.training.threads)
    jobs = [(None, 0), *((name, value) for name, values in scans.items() for value in values)]
    path = folder / RESULTS_FILE
    with locked(folder):
        state = open_run(folder, config, overwrite)
        found = read_json(path) if path.exists() else {}
        runs: list[dict[str, Any]] = found.get("runs", [])
        done = {tuple(r[k] for k in ("seed", *SCANS)) for r in runs}
        if state == "finished":
            console.print(f"{folder} is finished with these settings; nothing to do (--overwrite starts anew)")
        with progress(console) as bar:
            everything = bar.add_task("Detecting motifs", total=seeds * len(jobs), note="")
            for seed in range(config.training.seed, config.training.seed + seeds):
                for name, value in jobs:
                    setting = replace(base, **{name: value}) if name else base
                    if (seed, *(getattr(setting, k) for k in SCANS)) not in done:
                        start = time.process_time()
                        if name:
                            run = compare(setting, seed)
                        else:
                            task = bar.add_task(f"Learning, seed {seed}", total=config.training.epochs, note="")

                            def step(update: int, loss: float, task: Any = task) -> None:
                                bar.update(task, completed=update, note=f"loss {loss:.4f}")

                            kernels = draw_kernels(base, generator(seed, _KERNELS))
                            learned = learn_kernels(
                                base,
                                kernels,
                                generator(seed, _LEARNING),
                                config.training.epochs,
                                config.training.lr,
                                step,
                            )
                            bar.remove_task(task)
                            if seed == config.training.seed:
                                with atomic_path(folder / "kernels.npz") as temporary:
                                    np.savez(temporary, learned=learned.numpy(), true=kernels.numpy())
                            run = compare(base, seed, learned, controls=True)
                            run["recovery"] = recovery(learned, kernels)
                        runs.append(run | {"cpu_seconds": round(time.process_time() - start, 2)})
                        write_json(path, summary(base, runs))
                    bar.advance(everything)
        found = summary(base, runs)
        if state != "finished":
            picture(folder, base, runs)
            seconds = sum(r["cpu_seconds"] for r in runs)
            write_json(
                folder / METRICS_FILE, {"experiment": "motifs", "cpu_seconds": round(seconds, 1), **found["mean"]}
            )
    return found


def summary(base: Setting, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The setting, means and standard deviations over seeds of what was run at it, and the runs."""
    own = [r for r in runs if _at(r, base)]
    columns: dict[str, list[float]] = {}
    for run in own:
        flat = {**run["hits"], "precision": run["precision"], **run["recovery"]}
        for name, value in flat.items():
            columns.setdefault(name, []).append(value)
    return {
        "setting": asdict(base),
        "seeds": len(own),
        "mean": {k: float(np.mean(v)) for k, v in columns.items()},
        "sd": {k: _spread(v) for k, v in columns.items()},
        "runs": runs,
    }


def _at(run: Mapping[str, Any], setting: Setting) -> bool:
    return all(run[k] == getattr(setting, k) for k in SCANS)


def _spread(values: list[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def scanned(base: Setting, runs: list[dict[str, Any]], name: str, detector: str) -> list[tuple[int, list[float]]]:
    """True-positive rates of one detector along one axis of ``SCANS``: (value, one rate per seed), in order."""
    rates: dict[int, list[float]] = {}
    for run in runs:
        if _at(run, replace(base, **{name: run[name]})):
            rates.setdefault(run[name], []).append(run["hits"][detector])
    return sorted(rates.items())


def picture(folder: Path, base: Setting, runs: list[dict[str, Any]]) -> Path:
    """Draw ``motifs.png``: detection against neurons, delays and motifs; a motif's true and learned kernel; how
    similar learned kernels are to all true ones.
    """
    from matplotlib.figure import Figure  # takes a second to import, as its fonts do

    from .plots import BLUE, VERMILION

    with np.load(folder / "kernels.npz") as file:
        learned, true = file["learned"], file["true"]
    figure = Figure((10.5, 6.6), layout="constrained")
    above, below = figure.subplots(2, 3)
    labels = {"neurons": "neurons", "delays": "steps of a motif (delays)", "motifs": "number of motifs"}
    for axis, name in zip(above, SCANS, strict=True):
        for detector, words, colour, mark in (
            ("hdsnn", "HD-SNN", BLUE, "o-"),
            ("corr", "correlation", VERMILION, "s--"),
        ):
            points = scanned(base, runs, name, detector)
            axis.errorbar(
                [value for value, _ in points],
                [100 * np.mean(rates) for _, rates in points],
                [100 * (_spread(rates) or 0.0) for _, rates in points],
                fmt=mark,
                color=colour,
                label=words,
                capsize=3,
            )
        values = [value for value, _ in scanned(base, runs, name, "hdsnn")]
        axis.set_xscale("log", base=2)
        axis.set_xticks(values, [str(v) for v in values])
        axis.minorticks_off()
        axis.set_ylim(0, 102)
        axis.set_xlabel(labels[name])
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    above[0].set_ylabel("true positives (%)")
    above[0].legend(frameon=False, loc="upper left")
    top = float(np.abs(true[0]).max())
    for axis, kernel, title in ((below[0], true[0], "a motif: true kernel"), (below[1], learned[0], "learned kernel")):
        drawn = axis.imshow(kernel, cmap="PuOr_r", vmin=-top, vmax=top, aspect="auto", interpolation="nearest")
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("steps after the motif's onset")
    below[0].set_ylabel("neuron")
    figure.colorbar(drawn, ax=below[1], label="change of log-odds")
    a, b = (k.reshape(len(k), -1) / np.linalg.norm(k.reshape(len(k), -1), axis=1)[:, None] for k in (learned, true))
    table = below[2].imshow(a[:SHOWN] @ b[:SHOWN].T, cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
    below[2].set_title(f"similarity, {min(SHOWN, len(a))} of {len(a)} motifs", fontsize=10)
    below[2].set_xlabel("true kernel")
    below[2].set_ylabel("learned kernel")
    figure.colorbar(table, ax=below[2], label="cosine")
    path = folder / PICTURE_FILE
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})
    return path


def tables(found: dict[str, Any]) -> list[Table]:
    """What :func:`sweep` found, as tables: the detectors, what was learned, and the scans."""
    base = Setting(**found["setting"])
    mean, sd = found["mean"], found["sd"]

    def percent(values: list[float]) -> str:
        spread = _spread(values)
        return f"{100 * np.mean(values):.1f}" + ("" if spread is None else f" ± {100 * spread:.1f}")

    what = f"{base.neurons} neurons, {base.delays} delays, {base.motifs} motifs, {found['seeds']} seeds"
    first = Table("detector", "true positives", title=f"Spiking motifs: {what}")
    for name, words in DETECTORS.items():
        if name in mean:
            first.add_row(words, percent([r["hits"][name] for r in found["runs"] if _at(r, base)]) + " %")
    second = Table("learned kernels", "mean", "sd")
    for name, words in (
        ("cosine", "cosine to the true kernel"),
        ("control", "cosine to other motifs' kernels"),
        ("best", "own kernel is the most similar of all"),
    ):
        spread = "-" if sd[name] is None else f"{sd[name]:.4f}"
        second.add_row(words, f"{mean[name]:.4f}", spread)
    third = Table("varied", "value", "HD-SNN", "correlation", title="True positives in %")
    for name in SCANS:
        both = (scanned(base, found["runs"], name, d) for d in ("hdsnn", "corr"))
        for (value, hd), (_, corr) in zip(*both, strict=True):
            third.add_row(name, str(value), percent(hd), percent(corr))
    return [first, second, third]


def _run(config: Config, folder: Path, console: Console, overwrite: bool) -> None:
    found = sweep(config, folder, console, overwrite)
    for table in tables(found):
        console.print(table)
    console.print(f"{folder / PICTURE_FILE}", soft_wrap=True)


EXPERIMENT = Experiment(
    "motifs",
    "spiking motifs detected by heterogeneous delays (HD-SNN), kernels given and learned, 5 seeds",
    defaults,
    _run,
)
