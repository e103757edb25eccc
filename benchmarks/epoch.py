"""A training epoch of the demo's recipe (spoken digits, AdLIF, H 512) with engine eager and engine numba, in turns.

    python -m benchmarks.epoch [--json] [--rounds 7] [--threads N]

Two figures each: the steps of an epoch (augmented batch, forward, loss, backward, clipping, optimiser), and an epoch as
``ranvier train`` runs it, with Lightning, logs and the files of a run, from runs of several epochs. And the part of
both that no engine can change: batches and their augmentation.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .train_step import limit_threads, machine

ENGINES = ("eager", "numba")


def steps_of_an_epoch(config: Any, net: Any, train: Any, epoch: int) -> float:
    """Seconds for all training steps of one epoch, without Lightning."""
    import torch

    from ranvier.experiments.training import Classifier, key

    module = Classifier(config, net, train, None)
    optimizer = module.configure_optimizers()["optimizer"]
    parameters = list(net.parameters())
    start = time.perf_counter()
    for number in range(module.batches):
        torch.manual_seed(key(config.training.seed, epoch, number, 0))
        optimizer.zero_grad()
        loss = module.loss(module.training_batch(epoch, number))[0]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, config.training.clip)
        optimizer.step()
    return time.perf_counter() - start


def batches_of_an_epoch(config: Any, net: Any, train: Any, epoch: int) -> float:
    """Seconds for the batches alone, augmented."""
    from ranvier.experiments.training import Classifier

    module = Classifier(config, net, train, None)
    start = time.perf_counter()
    for number in range(module.batches):
        module.training_batch(epoch, number)
    return time.perf_counter() - start


def epoch_of_a_run(config: Any, net: Any, train: Any) -> float:
    """Seconds per epoch of a whole run of ``config.training.epochs`` epochs."""
    from rich.console import Console

    from ranvier.experiments.training import fit

    with tempfile.TemporaryDirectory() as folder:
        trained = fit(config, net, train, None, Path(folder), Console(file=io.StringIO()))
    return trained.seconds / trained.epochs


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.epoch", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    parser.add_argument("--rounds", type=int, default=7, help="of which the median is taken")
    parser.add_argument("--epochs", type=int, default=8, help="of the whole runs")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="by default every core")
    options = parser.parse_args(arguments)
    limit_threads(options.threads)

    import torch

    from ranvier.experiments import digits
    from ranvier.experiments.config import override
    from ranvier.experiments.data import load_training
    from ranvier.experiments.model import build_network

    torch.set_num_threads(options.threads)
    settings = [f"training.epochs={options.epochs}", f"training.threads={options.threads}"]
    config = override(digits.defaults(), settings)
    train, _ = load_training(config)
    nets: dict[str, Any] = {}
    for engine in ENGINES:
        nets[engine] = build_network(config, train.channels, len(train.classes))
        nets[engine].engine = engine
        steps_of_an_epoch(config, nets[engine], train, 0)  # compiles, fills caches
    steps: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    runs: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    batches: list[float] = []
    for turn in range(options.rounds):
        batches.append(batches_of_an_epoch(config, nets["eager"], train, turn + 1))
        for engine in ENGINES if turn % 2 else reversed(ENGINES):
            steps[engine].append(steps_of_an_epoch(config, nets[engine], train, turn + 1))
            runs[engine].append(epoch_of_a_run(config, nets[engine], train))
    found: dict[str, Any] = {"machine": machine(options.threads), "samples": len(train), "rounds": options.rounds}
    for name, times in (("steps_s", steps), ("run_s", runs)):
        medians = {engine: statistics.median(samples) for engine, samples in times.items()}
        found[name] = medians | {"eager / numba": medians["eager"] / medians["numba"]}
    found["batches_s"] = statistics.median(batches)
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        for name, label in (("steps_s", "steps of an epoch"), ("run_s", "epoch of a run")):
            eager, numba, ratio = found[name].values()
            print(f"{label}: eager {eager:.3f} s, numba {numba:.3f} s, {ratio:.2f} times faster")
        print(f"of which batches and their augmentation, with either engine: {found['batches_s']:.3f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
