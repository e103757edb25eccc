"""A task whose classes differ only in the times of spikes, for networks that have no memory but their delays.

Every input fires once per sample; a class is a set of spike times, jittered, and the whole is shifted at random, so
that neither rates nor absolute times tell the class. The hidden neurons forget within a step and the readout counts
their spikes: without delays they see coincidences and nothing else. [The task is ours, after the remark that a
feed-forward network with delays computes on coincidences: Hammouamri, Khalfaoui-Hassani, Masquelier 2024]
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..errors import ConfigError
from ..networks import Delay, Dense, Network, delay_schedule, delays_of
from ..neurons import LIF, ATan, Integrator
from .config import Config
from .experiment import Experiment
from .runs import locked, resumed_runs, write_json

INPUTS, CLASSES, SPAN, SHIFT, EARLIEST, STEPS = 20, 10, 40, 10, 3, 60
JITTER = 1.5  # standard deviation, in steps of 1 ms
TRAIN, TEST, BATCH, SEEDS = 1500, 1000, 64, 5
WIDTH = 6.0  # ms: of the Gaussian kernel that all delays start with
DELAY_RATE = 15.0  # learning rate of delays, in steps, over that of the weights
RESULTS_FILE = "results.json"
VARIANTS = {
    "none": "no delays",
    "fixed": "fixed random delays, same kernels and phases",
    "learned": "learned delays: annealed, rounded, frozen",
    "soft": "learned delays, never rounded in training",
}


@dataclass(frozen=True)
class Samples:
    """Spikes [T, B, N] and classes [B]."""

    spikes: Tensor
    classes: Tensor


def draw_patterns(seed: int) -> np.ndarray:
    """Spike times of each class, [classes, inputs]: distinct within a class, so that no two inputs fire together."""
    rng = np.random.default_rng([seed, 0])
    return np.stack([rng.permutation(SPAN)[:INPUTS] for _ in range(CLASSES)])


def draw_samples(patterns: np.ndarray, count: int, seed: int, part: int) -> Samples:
    """``count`` samples of the classes of ``patterns``; ``part`` tells training (1) from test (2)."""
    rng = np.random.default_rng([seed, part])
    classes = rng.integers(0, len(patterns), count)
    times = patterns[classes] + np.rint(rng.normal(0, JITTER, (count, INPUTS))).astype(int)
    times = np.clip(times + EARLIEST + rng.integers(0, SHIFT, (count, 1)), 0, STEPS - 1)
    spikes = np.zeros((STEPS, count, INPUTS), np.float32)
    spikes[times, np.arange(count)[:, None], np.arange(INPUTS)] = 1.0
    return Samples(torch.from_numpy(spikes), torch.from_numpy(classes))


def build(variant: str, seed: int, hidden: int) -> Network:
    """Inputs, memoryless hidden neurons, and a readout that sums."""
    torch.manual_seed(seed)
    net = Network(dt=1.0)
    x = net.input(INPUTS, kind="events")
    # Euler with tau of one step: nothing of the membrane is left after it
    neuron = LIF(hidden, tau_mem=1.005, integrator="euler", surrogate=ATan(0.4), detach_reset=True)
    h = net.population(neuron, name="hidden")
    y = net.population(Integrator(CLASSES, tau_mem=1e6), name="readout")
    delay = None if variant == "none" else Delay(max=float(SPAN), kind="synaptic", kernel="gaussian", width=WIDTH)
    net.connect(x, h, Dense(delay=delay, batch_norm=True))
    net.connect(h, y, Dense(bias=True))
    net.readout(y, "last")
    return net


def accuracy(net: Network, samples: Samples, soft: bool = False) -> float:
    """The share that is right, with whole delays, or with ``soft`` through the kernels of training."""
    net.eval()
    for delay in delays_of(net) if soft else ():
        delay.train()
    with torch.no_grad():
        return float((net(samples.spikes).output.argmax(1) == samples.classes).float().mean())


def run_one(variant: str, seed: int, config: Config, progress: Progress | None = None) -> dict[str, Any]:
    """Train one network. ``accuracy`` is that of whole delays; ``real`` that of the delays as they were trained."""
    t = config.training
    patterns = draw_patterns(seed)
    train, test = (draw_samples(patterns, n, seed, part) for n, part in ((TRAIN, 1), (TEST, 2)))
    net = build(variant, seed, config.model.hidden[0])
    steps = [d.steps for d in delays_of(net)]
    own = {id(s) for s in steps}
    groups = [{"params": [p for p in net.parameters() if id(p) not in own], "lr": t.lr}]
    if steps:  # fixed ones go through the same phases, so that only the learning differs
        groups.append({"params": steps, "lr": 0.0 if variant == "fixed" else t.lr * DELAY_RATE})
    optimizer = torch.optim.Adam(groups)
    batches = -(-TRAIN // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [float(g["lr"]) for g in groups], total_steps=t.epochs * batches, pct_start=0.2, cycle_momentum=False
    )
    generator = torch.Generator().manual_seed(seed)
    task = progress.add_task(f"{variant}, seed {seed}", total=t.epochs) if progress else None
    for epoch in range(t.epochs):
        # without the remedy the width only shrinks
        delay_schedule(net, min(epoch / t.epochs, 0.49) if variant == "soft" else epoch / t.epochs)
        net.train()
        for part in torch.randperm(TRAIN, generator=generator).split(BATCH):
            loss = cross_entropy(net(train.spikes[:, part]).output, train.classes[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if progress is not None and task is not None:
            progress.advance(task)
    if progress is not None and task is not None:
        progress.remove_task(task)
    return {
        "variant": variant,
        "seed": seed,
        "accuracy": accuracy(net, test),
        "real": accuracy(net, test, soft=True),
        "training": accuracy(net, train),
        "params": sum(p.numel() for p in net.parameters()),
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means and standard deviations over seeds, by variant."""
    table: dict[str, Any] = {}
    for variant in VARIANTS:
        own = [r for r in runs if r["variant"] == variant]
        if own:
            table[variant] = {"seeds": len(own), "params": own[0]["params"]}
            for key in ("accuracy", "real", "training"):
                values = np.array([r[key] for r in own])
                spread = float(values.std(ddof=1)) if len(own) > 1 else None
                table[variant][key] = {"mean": float(values.mean()), "sd": spread}
    return {"summary": table, "runs": runs}


def defaults() -> Config:
    """16 hidden neurons, 60 epochs."""
    config = Config(experiment="timing")
    config.model.hidden = [16]
    config.training.epochs, config.training.lr = 60, 2e-2
    return config


def _run(config: Config, folder: Path, console: Console, overwrite: bool) -> None:
    if len(config.model.hidden) != 1:
        raise ConfigError("timing has one hidden layer; give model.hidden one size")
    path = folder / RESULTS_FILE
    torch.set_num_threads(config.training.threads)
    with locked(folder), Progress(console=console) as progress:
        runs = resumed_runs(path, config, overwrite)
        done = {(r["variant"], r["seed"]) for r in runs}
        for seed in range(config.training.seed, config.training.seed + SEEDS):
            for variant in VARIANTS:
                if (variant, seed) not in done:
                    runs.append(run_one(variant, seed, config, progress))
                    write_json(path, summary(runs))
    table = Table("variant", "whole delays", "delays as trained", title="Classes that differ only in spike timing")
    for variant, found in summary(runs)["summary"].items():
        cells = [f"{f['mean']:.3f} ± {f['sd'] or 0:.3f}" for f in (found["accuracy"], found["real"])]
        table.add_row(VARIANTS[variant], *cells)
    console.print(table, f"{path}", sep="\n")


EXPERIMENT = Experiment(
    "timing", "classes that differ only in spike timing: no delays, fixed and learned ones", defaults, _run
)
