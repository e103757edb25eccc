"""Detection of spiking motifs by heterogeneous delays: the generative model, the detectors, and learning the kernels.

A motif makes N neurons fire at times of their own over D steps. Given the spikes alone, where did which motif begin? A
detector with one delayed weight per neuron and time in the motif answers; one without these delays cannot.
[Perrinet 2023, ICANN, "Accurate detection of spiking motifs in multi-unit raster plots",
https://github.com/laurentperrinet/2023-07-20_HDSNN-ICANN, file 2023-09-27_HD-SNN.ipynb]

Spikes are [T, trials, N] and motifs' onsets [T, trials, M], both of bool; kernels are float32 [M, N, D], the change of
a neuron's log-odds of firing, d steps after the motif's onset.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import ConfigError, DataError

SPIKE = (1.0, -0.8, -0.2)  # a spike is less likely in the two steps after one


@dataclass(frozen=True)
class Setting:
    """The paper's constants. Times of the kernels' envelope are shares of the motif's length D.

    Raises:
        ConfigError: a count below 1, a probability not strictly between 0 and 1, or a raster shorter than a motif.
    """

    neurons: int = 128
    delays: int = 31
    motifs: int = 233
    excitability: float = 4.0
    density: float = 0.05
    tau_decay: float = 0.4
    tau_rise: float = 0.05
    steps: int = 1024
    trials: int = 10
    p_spike: float = 0.001
    p_motif: float = 0.001

    def __post_init__(self) -> None:
        for name in ("neurons", "delays", "motifs", "steps", "trials"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("density", "p_spike", "p_motif"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"{name} must be a probability between 0 and 1, got {getattr(self, name)}")
        if self.delays > self.steps:
            raise ConfigError(f"a motif of {self.delays} steps does not fit into a raster of {self.steps}")


@dataclass(frozen=True)
class Found:
    """What a detector found. ``hits`` is the true-positive rate (the right motif at exactly the right step),
    ``detected`` how often it fired, ``onsets`` how often it should have.
    """

    hits: float
    detected: int
    onsets: int


def delayed_sum(spikes: Tensor, weights: Tensor) -> Tensor:
    """A feed-forward layer with a delayed weight per pair and delay, computed spike by spike.

    Args:
        spikes: [T, trials, inputs] of bool.
        weights: [inputs, outputs, D]; the last index is the delay in steps.

    Returns:
        [T + D - 1, trials, outputs]: ``out[t, :, j] = sum_{i, d} spikes[t - d, :, i] * weights[i, j, d]``. It is
        differentiable in the weights, and their gradient too is gathered at spikes only.
    """
    steps, trials, _ = spikes.shape
    delays = weights.shape[2]
    t, trial, source = spikes.nonzero(as_tuple=True)
    row = t * trials + trial
    out = weights.new_zeros((steps + delays - 1) * trials, weights.shape[1])
    for d, tap in enumerate(weights.permute(2, 0, 1).contiguous().unbind()):
        out.index_add_(0, row + d * trials, tap.index_select(0, source))
    return out.view(steps + delays - 1, trials, -1)


def draw_kernels(setting: Setting, generator: torch.Generator) -> Tensor:
    """Kernels [M, N, D]: the rare large values of a normal distribution under an envelope that rises and decays,
    each followed by a dip (a neuron that has fired is less likely to fire at once again).
    """
    s = setting
    values = s.excitability * torch.randn(s.motifs, s.neurons, s.delays, generator=generator)
    cut = s.excitability * torch.special.ndtri(torch.tensor(1 - s.density))
    t = torch.linspace(0, 1, s.delays)
    values = values * (values > cut) * torch.exp(-t / s.tau_decay) * (1 - torch.exp(-t / s.tau_rise))
    # the envelope is 0 at t = 0, and the source centres the spike's shape: everything comes one step earlier
    shape = torch.tensor(SPIKE).flip(0).expand(s.neurons, 1, len(SPIKE))
    return F.conv1d(values, shape, padding=1, groups=s.neurons)


def draw_onsets(setting: Setting, generator: torch.Generator) -> Tensor:
    """Where motifs begin, [T, trials, M] of bool; none begins where it would not end within the raster."""
    s = setting
    onsets = torch.rand(s.steps, s.trials, s.motifs, generator=generator) < s.p_motif
    onsets[s.steps - s.delays + 1 :] = False
    return onsets


def draw_spikes(setting: Setting, onsets: Tensor, kernels: Tensor, generator: torch.Generator) -> Tensor:
    """Spikes [T, trials, N] of bool: independent draws, the log-odds of all motifs under way added to the base's."""
    odds = math.log(setting.p_spike / (1 - setting.p_spike)) + delayed_sum(onsets, kernels)[: len(onsets)]
    return torch.rand(odds.shape, generator=generator) < odds.sigmoid()


def evidence(spikes: Tensor, kernels: Tensor) -> Tensor:
    """For every step and motif the evidence that it began there, [T, trials, M].

    ``sum_{n, d} spikes[t + d, :, n] * kernels[:, n, d]``. This is the layer of :func:`delayed_sum` with the kernels'
    last index turned round, so that all spikes of a motif arrive together, D - 1 steps after its onset; those steps are
    cut off the front. Spikes are less rare than onsets, and a dense convolution is about as quick.
    """
    rows = F.pad(spikes.permute(1, 2, 0).to(kernels.dtype), (0, kernels.shape[2] - 1))
    return F.conv1d(rows, kernels).permute(2, 0, 1)


def threshold(values: Tensor, n: int) -> float:
    """What exactly the ``n`` largest of ``values`` exceed (fewer, if there are ties). ``n`` is below their number."""
    flat = values.flatten()
    return float(flat.kthvalue(len(flat) - n).values)


def detect(values: Tensor, onsets: Tensor, above: float | None = None) -> Found:
    """Fire where ``values``, the evidence, exceed ``above``.

    Without ``above`` they are the n largest values, n being the true number of onsets: the source's threshold. It then
    fires as often as it should, so that the true-positive rate is the precision too.

    Raises:
        DataError: there is no onset, or nothing else.
    """
    n = int(onsets.sum())
    if not 0 < n < onsets.numel():
        raise DataError(
            f"{n} of {onsets.numel()} places are onsets, so there is nothing to tell apart; draw more steps"
        )
    fired = values > (threshold(values, n) if above is None else above)
    return Found(float(fired[onsets].float().mean()), int(fired.sum()), n)


def correlation_kernels(setting: Setting, kernels: Tensor) -> Tensor:
    """The baseline: correlate with a motif's probabilities of firing instead of its log-odds."""
    return torch.sigmoid(math.log(setting.p_spike / (1 - setting.p_spike)) + kernels)


def strongest_taps(kernels: Tensor) -> Tensor:
    """Kernels [M, N, D] of which every pair keeps its largest value only: one weight and one delay per synapse."""
    return kernels * (kernels == kernels.amax(2, keepdim=True))


def learn_kernels(
    setting: Setting,
    kernels: Tensor,
    generator: torch.Generator,
    updates: int,
    lr: float,
    step: Callable[[int, float], None] | None = None,
) -> Tensor:
    """Learn kernels [M, N, D] by Adam from rasters whose onsets are known, fresh ones in every update.

    A layer from onsets to spikes, of kernels that begin at 0 and a bias per neuron, is made to predict the spikes
    (binary cross-entropy). ``kernels``, the true ones, are used to draw the rasters and nothing else. ``lr`` falls to 0
    along half a cosine. ``step(update, loss)`` is called after each.
    """
    learned = torch.zeros_like(kernels, requires_grad=True)
    bias = torch.full((setting.neurons,), math.log(setting.p_spike), requires_grad=True)
    optimiser = torch.optim.Adam([learned, bias], lr, foreach=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, updates)
    for update in range(updates):
        with torch.no_grad():
            onsets = draw_onsets(setting, generator)
            spikes = draw_spikes(setting, onsets, kernels, generator)
        odds = bias + delayed_sum(onsets, learned)[: len(onsets)]
        # binary cross-entropy of the log-odds, in the form that is quick for rare spikes
        loss = (F.softplus(odds).sum() - odds[spikes].sum()) / odds.numel()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step:
            step(update + 1, float(loss.detach()))
    return learned.detach()


def recovery(learned: Tensor, kernels: Tensor) -> dict[str, float]:
    """How well learned kernels match the true ones [M, N, D]: ``cosine`` and ``control`` (mean similarity to its own
    kernel, and to another motif's), ``best`` (share of motifs whose own kernel is the most similar of all).
    """
    a, b = (F.normalize(k.flatten(1), dim=1) for k in (learned, kernels))
    table = a @ b.T
    m = len(table)
    own = table.diagonal()
    return {
        "cosine": float(own.mean()),
        "control": float((table.sum() - own.sum()) / max(1, m * (m - 1))),
        "best": float((table.argmax(1) == torch.arange(m)).float().mean()),
    }
