"""``ranvier train l2mu-memory``: how far back a Legendre memory of spiking neurons reads its input; what repairs it.

A memory of order 6 and theta 20 steps hears band-limited noise. A ridge regression reads the input of 0 to 20 steps ago
from what the memory's neurons send; R^2 over that lag is the curve. With plain spikes the state is lost. Each repair
below has as many neurons: 70 that send the input, 420 of the memory. Mended or not, what they send is also read through
a leak, as a following neuron would, if validation prefers that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor

from ..files import atomic_path
from ..networks import (
    Copies,
    Dense,
    LegendreMemory,
    Network,
    PerChannel,
    memory_matrices,
    sigma_delta_memory,
)
from ..neurons import LIF, ATan, Neuron, Parameter, SigmaDelta, State, fire
from .config import Config
from .experiment import Experiment
from .runs import locked, resumed_runs, write_json

ORDER, THETA, CHANNELS, SEEDS = 6, 20.0, 70, 5
THETAS = (5.0, 10.0, 20.0, 50.0, 100.0, 200.0)
CUTOFF = 2.4
"""Highest frequency of the input, in cycles per window of theta."""
LOUD = 0.4
"""Standard deviation of what sigma-delta neurons are given: they send at most 1."""
BETA_U, THRESHOLD_U, BETA_M, THRESHOLD_M = 0.65, 0.1, 0.35, 0.4
"""Of plain spikes: published with the L2MU (docs/l2mu.md)."""
SCALED_THRESHOLD = 7.2
"""Over theta. It and the ``gain`` of the other repairs are the best of a coarse grid, on noise of another seed."""
TRAIN, VALID, TEST = 12, 6, 12
"""Sequences."""
LEAKS = (0.0, 2.0, 5.0, 10.0, 20.0)
PENALTIES = (1e-5, 1e-3, 1e-1, 10.0)
RESULTS_FILE, PICTURE_FILE = "results.json", "l2mu-memory.png"


class Graded(Neuron):
    """Sends its membrane where that is beyond the threshold, and empties it: a spike of any size."""

    threshold = Parameter(0.1, positive=True)
    v = State(0.0)
    output: ClassVar[str] = "real"
    default_reset: ClassVar[str] = "none"

    def step(self, v: Any, current: Any, p: Any) -> Any:
        v = v + current
        sent = fire(abs(v) - p.threshold) * v
        return v - sent, sent


class Change(Neuron):
    """A sigma-delta neuron whose spikes are the change of what it tells: its receivers have a synapse with ``tau_syn``,
    and so has it. The weights of a linear system A are then A - decay_syn.
    """

    tau_syn = Parameter(10.0, unit="ms", positive=True)
    decay_mem = Parameter(0.7)
    v_start = Parameter(0.0)
    i_syn = State(0.0)
    v = State("v_start")
    output: ClassVar[str] = "signed"
    default_reset: ClassVar[str] = "none"

    def derive(self, dt: float) -> dict[str, Tensor]:
        return {"decay_syn": torch.exp(-dt / self.tau_syn)}

    def step(self, i_syn: Any, v: Any, current: Any, p: Any) -> Any:
        i_syn = i_syn * p.decay_syn + current
        v = v * p.decay_mem + i_syn
        sign = torch.where(v > 0, 1.0, -1.0)
        spike = fire(v * sign - 0.5) * sign
        return i_syn, v - spike, spike


@dataclass(frozen=True)
class Memory:
    """A network with an input of one value, and the population that remembers it."""

    net: Network
    population: str


def drawn_encoders(seed: int) -> Tensor:
    """LeCun's uniform for one input, [channels, 1]: the channels hear the signal at different strengths and signs."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(CHANNELS, 1, generator=generator) * 2 - 1) * math.sqrt(3)


def plain(
    theta: float, seed: int, threshold: float = THRESHOLD_M, gain: float | None = None, learn: bool = False
) -> Memory:
    """Every coefficient of every channel is a LIF neuron, as published."""
    net = Network()
    x = net.input(1)
    surrogate = ATan(0.5)
    u = net.population(LIF(CHANNELS, tau_mem=-1 / math.log(BETA_U), threshold=THRESHOLD_U, surrogate=surrogate), "u")
    leaky = LIF(CHANNELS * ORDER, tau_mem=-1 / math.log(BETA_M), threshold=threshold, surrogate=surrogate)
    m = net.population(leaky, "m")
    a, b = memory_matrices(ORDER, theta, scaled=gain is not None)
    net.connect(x, u, Dense(weight=drawn_encoders(seed), learn=learn))
    net.connect(m, m, PerChannel(a, learn=learn))
    net.connect(u, m, PerChannel(b * (gain or 1.0), learn=learn))
    return Memory(net, m.name)


def phases(size: int, seed: int) -> Tensor:
    """Random starts of signed neurons: without them, equal neurons that hear the same would send the same."""
    return torch.rand(size, generator=torch.Generator().manual_seed(1_000 + seed)) - 0.5


def signed(theta: float, seed: int, gain: float = 2.0) -> Memory:
    """Every coefficient of every channel is one signed neuron."""
    net = Network()
    x = net.input(1)
    u = net.population(SigmaDelta(CHANNELS, v_start=phases(CHANNELS, seed)), "u")
    m = net.population(SigmaDelta(CHANNELS * ORDER, v_start=phases(CHANNELS * ORDER, seed + 1)), "m")
    a, b = memory_matrices(ORDER, theta)
    net.connect(x, u, Dense(weight=torch.sign(drawn_encoders(seed)) * LOUD))
    net.connect(m, m, PerChannel(a))
    net.connect(u, m, PerChannel(gain * b))
    return Memory(net, m.name)


def on_off(theta: float, seed: int, gain: float = 4.0) -> Memory:
    """Two plain neurons for each coefficient, for what is above and below 0, and half as many channels."""
    net = Network()
    half = CHANNELS // 2
    x = net.input(1)
    u = net.population(LIF(2 * half, tau_mem=-1 / math.log(BETA_U), threshold=THRESHOLD_U), "u")
    m = net.population(LIF(2 * half * ORDER, tau_mem=-1 / math.log(BETA_M), threshold=0.5), "m")
    a, b = memory_matrices(ORDER, theta)
    sides = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=a.dtype)
    net.connect(x, u, Dense(weight=torch.kron(drawn_encoders(seed)[:half], torch.tensor([[1.0], [-1.0]]))))
    net.connect(m, m, PerChannel(torch.kron(a, sides)))
    net.connect(u, m, PerChannel(torch.kron(b * gain, sides)))
    return Memory(net, m.name)


def graded(theta: float, seed: int, gain: float = 2.0) -> Memory:
    """Every coefficient of every channel is a neuron whose spikes have a size."""
    net = Network()
    x = net.input(1)
    u, m = net.population(Graded(CHANNELS), "u"), net.population(Graded(CHANNELS * ORDER), "m")
    a, b = memory_matrices(ORDER, theta)
    net.connect(x, u, Dense(weight=drawn_encoders(seed) * LOUD))
    net.connect(m, m, PerChannel(a))
    net.connect(u, m, PerChannel(b * gain))
    return Memory(net, m.name)


def change(theta: float, seed: int, gain: float = 3.0) -> Memory:
    """Every coefficient of every channel is one signed neuron that sends its change."""
    net = Network()
    x = net.input(1)
    u = net.population(SigmaDelta(CHANNELS, v_start=phases(CHANNELS, seed)), "u")
    m = net.population(Change(CHANNELS * ORDER, v_start=phases(CHANNELS * ORDER, seed + 1)), "m")
    a, b = memory_matrices(ORDER, theta)
    decay = math.exp(-1 / 10.0)
    net.connect(x, u, Dense(weight=torch.sign(drawn_encoders(seed)) * LOUD))
    net.connect(m, m, PerChannel(a - decay * torch.eye(ORDER)))
    net.connect(u, m, PerChannel(gain * b))
    net.connect(u, m, PerChannel(-decay * gain * b), delay=1.0)  # u is no change: its synapse is undone
    return Memory(net, m.name)


def copied(theta: float, seed: int, channels: int = 1) -> Memory:
    """What ``L2MU(memory="sigma_delta")`` is made of: signed neurons, several for each coefficient, staggered."""
    net = Network()
    x = net.input(1)
    copies = CHANNELS // channels
    u, m = sigma_delta_memory(net, channels, ORDER, theta, copies=copies)
    encoders = torch.sign(drawn_encoders(seed)[:channels]) * LOUD
    net.connect(x, u, Copies(encoders, targets=copies))
    return Memory(net, m.name)


MEMORIES: dict[str, tuple[str, Callable[[float, int], Memory]]] = {
    "plain": ("plain spikes, as published", plain),
    "threshold": ("threshold scaled with 1 / theta", lambda t, s: plain(t, s, SCALED_THRESHOLD / t)),
    "scaled": ("A and B scaled to the coefficients' range", lambda t, s: plain(t, s, 0.5, gain=16.0)),
    "learned": ("A and B scaled, and learned from there", lambda t, s: plain(t, s, 0.5, gain=16.0, learn=True)),
    "on_off": ("two populations, on and off", on_off),
    "signed": ("signed spikes", signed),
    "change": ("signed spikes that send the change", change),
    "copies_10": ("signed, 10 staggered neurons a coefficient, 7 channels", lambda t, s: copied(t, s, 7)),
    "copies": ("signed, 70 staggered neurons a coefficient, 1 channel", copied),
    "graded": ("graded spikes (not -1, 0, 1)", graded),
}
"""Name: words, and what builds it from theta and a seed. All have 490 neurons."""
SWEPT, SWEPT_SEEDS = ("plain", "copies"), 3


def noise(theta: float, sequences: int, seed: int) -> Tensor:
    """Band-limited noise of unit variance, [T, B, 1]: 600 steps, or 6 windows after the first three."""
    steps = max(600, round(9 * theta))
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft(rng.normal(size=(2 * steps, sequences)), axis=0)
    spectrum[np.fft.rfftfreq(2 * steps) > CUTOFF / theta] = 0
    wave = np.fft.irfft(spectrum, axis=0)[:steps]
    return torch.from_numpy((wave / wave.std()).astype(np.float32)).unsqueeze(-1)


def sent(memory: Memory, x: Tensor, chunk: int = 10) -> Tensor:
    """What the memory's neurons send, [T, B, N]."""
    memory.net.eval()
    with torch.no_grad():
        parts = [memory.net(part, record=[memory.population]).recorded for part in x.split(chunk, 1)]
    return torch.cat([p[memory.population] for p in parts], 1)


def leaked(spikes: Tensor, tau: float) -> Tensor:
    """Spikes [T, B, N] through a leak of ``tau`` steps; 0 keeps none of the past."""
    if tau == 0:
        return spikes
    decay, trace, out = math.exp(-1 / tau), torch.zeros_like(spikes[0]), []
    for now in spikes.unbind():
        trace = decay * trace + now
        out.append(trace)
    return torch.stack(out)


def read_back(spikes: Tensor, x: Tensor, lags: list[int], skip: int) -> dict[str, Any]:
    """R^2 at each lag on the test sequences; the leak and the penalty are those of the highest mean on validation."""
    y = torch.stack([x[skip - d : len(x) - d, :, 0] for d in lags], -1).double()
    found: dict[str, Any] = {}
    for tau in LEAKS:
        f = leaked(spikes, tau)[skip:].double()
        f = torch.cat([f, torch.ones_like(f[..., :1])], -1)
        parts = [(f[:, a:b].flatten(0, 1), y[:, a:b].flatten(0, 1)) for a, b in _splits()]
        (train_f, train_y), valid, test = parts
        gram, target = train_f.T @ train_f / len(train_f), train_f.T @ train_y / len(train_f)
        for penalty in PENALTIES:
            size = penalty * float(gram.diagonal()[:-1].mean()) + 1e-9
            weights = torch.linalg.solve(gram + size * torch.eye(len(gram)).double(), target)
            score, tested = (1 - (t - g @ weights).square().mean(0) / t.var(0) for g, t in (valid, test))
            if not found or float(score.mean()) > found["valid"]:
                found = {"valid": float(score.mean()), "leak": tau, "r2": tested.tolist()}
    return found


def _splits() -> tuple[tuple[int, int], ...]:
    return (0, TRAIN), (TRAIN, TRAIN + VALID), (TRAIN + VALID, TRAIN + VALID + TEST)


def train(memory: Memory, theta: float, seed: int, steps: int) -> None:
    """Learn A, B and the encoders with a linear readout, by surrogate gradients, on noise of its own."""
    torch.manual_seed(seed)
    lags = [round(theta * q / 4) for q in range(5)]
    skip = lags[-1] + 10
    read = torch.nn.Linear(CHANNELS * ORDER, len(lags))
    torch.nn.init.normal_(read.weight, std=0.02)
    groups = [{"params": [p for p in memory.net.parameters() if p.requires_grad], "lr": 3e-3}]
    optimizer = torch.optim.Adam([*groups, {"params": list(read.parameters()), "lr": 3e-3}])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    memory.net.train()
    x = noise(theta, 16, 10_000 + seed)
    rng = np.random.default_rng(seed)
    length = skip + 60
    for _ in range(steps):
        at = int(rng.integers(0, len(x) - length))
        part = x[at : at + length]
        spikes = memory.net(part, record=[memory.population]).recorded[memory.population]
        y = torch.stack([part[skip - d : length - d, :, 0] for d in lags], -1)
        loss = (read(spikes[skip:]) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def run_one(name: str, theta: float, seed: int, steps: int) -> dict[str, Any]:
    """One memory: R^2 at every lag (five of them for other thetas than ``THETA``), how many neurons fire."""
    x = noise(theta, TRAIN + VALID + TEST, seed)
    whole = round(theta)
    lags = list(range(whole + 1)) if theta == THETA else [round(theta * q / 4) for q in range(5)]
    if name == "continuous":
        spikes = LegendreMemory(ORDER, theta)(x).flatten(2)
        rates = rows = None
    else:
        memory = MEMORIES[name][1](theta, seed)
        if name == "learned":
            train(memory, theta, seed, steps)
        spikes = sent(memory, x)
        assert spikes.shape[-1] == CHANNELS * ORDER
        fired = (spikes != 0).double().flatten(0, 1)
        rates, rows = float(fired.mean()), float((fired.sum(0) > 0).double().mean())
    found = read_back(spikes, x, lags, 3 * whole)
    return {"memory": name, "theta": theta, "seed": seed, "lags": lags, **found, "rate": rates, "firing": rows}


def jobs(seeds: range) -> list[tuple[str, float, int]]:
    """(memory, theta, seed) of all runs."""
    found = [(name, THETA, seed) for seed in seeds for name in ("continuous", *MEMORIES)]
    others = [theta for theta in THETAS if theta != THETA]
    few = seeds[:SWEPT_SEEDS]
    return found + [(name, theta, seed) for theta in others for seed in few for name in ("continuous", *SWEPT)]


def curve(runs: list[dict[str, Any]], name: str, theta: float = THETA) -> tuple[list[int], np.ndarray]:
    """Lags, and R^2 [seeds, lags]."""
    own = [r for r in runs if r["memory"] == name and r["theta"] == theta]
    return own[0]["lags"], np.array([r["r2"] for r in own])


def picture(folder: Path, runs: list[dict[str, Any]]) -> Path:
    """Draw ``l2mu-memory.png``: R^2 over the lag for every memory, and at the far end over theta."""
    from matplotlib.figure import Figure  # takes a second to import, as its fonts do

    from .plots import BLACK, BLUE, GREEN, ORANGE, PURPLE, VERMILION

    colours = [VERMILION, ORANGE, "#8B4513", PURPLE, "#999999", GREEN, "#56B4E9", "#4477CC", BLUE, "#B8860B"]
    styles = {"graded": ":", "change": "-.", "copies_10": "--"}
    figure = Figure((11.5, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    for name, colour in zip(("continuous", *MEMORIES), (BLACK, *colours), strict=True):
        lags, r2 = curve(runs, name)
        words = "continuous values" if name == "continuous" else MEMORIES[name][0]
        wide = 2.4 if name in ("plain", "copies", "continuous") else 1.4
        left.plot(lags, r2.mean(0), styles.get(name, "-"), color=colour, label=words, linewidth=wide)
        left.fill_between(lags, r2.min(0), r2.max(0), color=colour, alpha=0.12, linewidth=0)
    left.set_xlabel("lag (steps), of a window of 20")
    left.set_ylabel("R² of the input read back")
    left.set_ylim(-0.05, 1.02)
    for name, colour, mark in (("continuous", BLACK, "o-"), ("copies", BLUE, "s-"), ("plain", VERMILION, "v-")):
        thetas = [t for t in THETAS if any(r["memory"] == name and r["theta"] == t for r in runs)]
        ends = [curve(runs, name, t)[1][:, -1].mean() for t in thetas]
        right.plot(thetas, ends, mark, color=colour, label="continuous values" if name == "continuous" else name)
    right.set_xscale("log")
    right.set_xticks(THETAS, [f"{t:g}" for t in THETAS])
    right.minorticks_off()
    right.set_xlabel("theta (steps)")
    right.set_ylabel("R² at the far end of the window")
    right.set_ylim(-0.05, 1.02)
    for axis in (left, right):
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*left.get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8)
    path = folder / PICTURE_FILE
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})
    return path


def defaults() -> Config:
    """400 steps of training for the learned memory."""
    config = Config(experiment="l2mu-memory")
    config.training.epochs = 400
    return config


def _run(config: Config, folder: Path, console: Console, overwrite: bool) -> None:
    path = folder / RESULTS_FILE
    torch.set_num_threads(config.training.threads)
    with locked(folder), Progress(console=console) as progress:
        runs = resumed_runs(path, config, overwrite)
        done = {(r["memory"], r["theta"], r["seed"]) for r in runs}
        todo = jobs(range(config.training.seed, config.training.seed + SEEDS))
        task = progress.add_task("memories", total=len(todo))
        for job in todo:
            if job not in done:
                runs.append(run_one(*job, steps=config.training.epochs))
                write_json(path, {"runs": runs})
            progress.advance(task)
    table = Table("memory", "0", "5", "10", "15", "20 back", "rate", "neurons that fire", title="R² of the input")
    for name in ("continuous", *MEMORIES):
        lags, r2 = curve(runs, name)
        own = [r for r in runs if r["memory"] == name and r["theta"] == THETA]
        cells = [
            f"{r2[:, lags.index(d)].mean():.2f} ± {r2[:, lags.index(d)].std(ddof=1):.2f}" for d in (0, 5, 10, 15, 20)
        ]
        more = (
            ["-", "-"] if name == "continuous" else [f"{np.mean([r[k] for r in own]):.2f}" for k in ("rate", "firing")]
        )
        table.add_row("continuous values" if name == "continuous" else MEMORIES[name][0], *cells, *more)
    console.print(table)
    console.print(f"{path}", f"{picture(folder, runs)}", sep="\n")


EXPERIMENT = Experiment(
    "l2mu-memory",
    "how far back a spiking Legendre memory reads its input, and what repairs it, 5 seeds",
    defaults,
    _run,
)
