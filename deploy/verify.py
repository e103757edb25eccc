"""Verification: an artefact is run in a real tool and compared with the golden model, output for output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from ..errors import ExportError
from ..networks import Network
from .integer import IntegerNetwork, IntegerResult, checked_lengths

Stimuli = np.ndarray | Mapping[str, np.ndarray]
FIRING_RANGE = (1e-5, 0.9)
"""Spikes per neuron and step that a population must lie between; two silent programs also agree."""


class Target(Protocol):
    """A kind of artefact. One file per target; all of them are in ``TARGETS``."""

    name: str

    def export(self, inet: IntegerNetwork, folder: str | Path, name: str, vectors: Stimuli | None = None) -> list[Path]:
        """Write the artefact. Raises :class:`ExportError` before any file is written."""
        ...

    def unavailable(self) -> str | None:
        """Why the artefact cannot be run on this machine and how to change that, or None."""
        ...

    def replay(
        self, inet: IntegerNetwork, folder: str | Path, name: str, stimuli: Mapping[str, np.ndarray], ends: np.ndarray
    ) -> tuple[IntegerResult, dict[str, Any]]:
        """Run the artefact in ``folder`` on samples; returns what came out and figures about the artefact (``bytes``,
        ``ram``, ...).

        Raises :class:`ToolError` if the tool fails.
        """
        ...


@dataclass(frozen=True)
class Verification:
    """What a verifier found. The ``differing`` counts are None, with a ``reason``, where the target was not run; 0
    means equal.
    """

    target: str
    samples: int = 0
    differing_spikes: int | None = None
    differing_readouts: int | None = None
    differing_states: int | None = None
    differing_classes: int | None = None
    firing: dict[str, float] = field(default_factory=dict)
    reason: str | None = None
    bytes: int | None = None
    ram: int | None = None
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Run, nothing differs, and every spiking population fires in a sensible range."""
        counts = (self.differing_spikes, self.differing_readouts, self.differing_states, self.differing_classes)
        return self.reason is None and all(c == 0 for c in counts)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"passed": self.passed}


def verify(
    target: Target,
    inet: IntegerNetwork,
    folder: str | Path,
    name: str,
    x: Stimuli,
    lengths: np.ndarray | None = None,
    golden: IntegerResult | None = None,
) -> Verification:
    """Run the artefact in ``folder`` on ``x`` [T, B, N] and count what differs from the golden model.

    ``differing_spikes`` counts outputs of every population at every step (a real output counts like a spike).
    ``golden``, if already computed on the same samples, saves running the golden model again.
    """
    stimuli = inet.stimuli(x)
    steps, batch = next(iter(stimuli.values())).shape[:2]
    ends = checked_lengths(lengths, steps, batch)
    why = target.unavailable()
    if why is not None:
        return Verification(target.name, reason=why)
    expected = golden or inet.run(stimuli, ends)
    got, figures = target.replay(inet, folder, name, stimuli, ends)
    counts = {
        # where an artefact comes in two forms, what these say differently is among them
        "differing_spikes": figures.pop("disagreements", 0)
        + sum(int(np.sum(expected.outputs[p] != got.outputs[p])) for p in expected.outputs),
        "differing_readouts": int(np.sum(expected.readout != got.readout)),
        "differing_states": sum(
            int(np.sum(v != got.states[p][s])) for p, own in expected.states.items() for s, v in own.items()
        ),
        "differing_classes": int(np.sum(expected.classes != got.classes)),
    }
    firing = firing_rates(inet, expected, ends)
    low, high = FIRING_RANGE
    odd = [f"{p} fires {r:.2g} times per neuron and step" for p, r in firing.items() if not low <= r <= high]
    reason = f"the comparison proves little: {', '.join(odd)}; expected between {low:g} and {high:g}" if odd else None
    size, ram = figures.pop("bytes", None), figures.pop("ram", None)
    return Verification(
        target.name, batch, **counts, firing=firing, reason=reason, bytes=size, ram=ram, figures=figures
    )


def firing_rates(inet: IntegerNetwork, result: IntegerResult, ends: np.ndarray) -> dict[str, float]:
    """Spikes per neuron and step of every spiking population."""
    total = float(np.sum(ends))
    return {
        p.name: float(np.count_nonzero(result.outputs[p.name])) / (total * p.size)
        for p in inet.populations
        if p.program.spikes
    }


@dataclass(frozen=True)
class Agreement:
    """Float against integer. ``spikes`` and ``float_spikes``: spikes per population; ``spike_ratio`` integer / float;
    ``differing`` the fraction of float spikes that differ in place; ``same_class`` the fraction of samples with equal
    class; accuracies if labels were given.
    """

    spikes: dict[str, int]
    float_spikes: dict[str, int]
    spike_ratio: dict[str, float]
    differing: dict[str, float]
    same_class: float
    accuracy: float | None = None
    float_accuracy: float | None = None

    @property
    def within(self) -> bool:
        """Every population's spikes within 10 % of float."""
        return all(abs(r - 1.0) <= 0.1 for r in self.spike_ratio.values())

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"within": self.within}


def agreement(
    net: Network,
    inet: IntegerNetwork,
    x: Stimuli,
    lengths: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    golden: IntegerResult | None = None,
) -> Agreement:
    """Run ``net`` in float and ``inet`` on the same samples and compare spike counts and classes."""
    stimuli = inet.stimuli(x)
    steps, batch = next(iter(stimuli.values())).shape[:2]
    ends = checked_lengths(lengths, steps, batch)
    exact = golden or inet.run(stimuli, ends)
    spiking = [p.name for p in inet.populations if p.program.spikes]
    if {p.name for p in inet.populations} != set(net.populations):
        raise ExportError("agreement: the integer network was not made from this network")
    training = net.training
    net.eval()
    try:
        with torch.no_grad():
            like = next(net.parameters(), torch.zeros(()))
            given = {i.name: torch.as_tensor(i.real(stimuli[i.name])).to(like) for i in inet.inputs}
            real = net(given, lengths=torch.as_tensor(ends), record=spiking)
    finally:
        net.train(training)
    valid = (np.arange(steps)[:, None] < ends)[:, :, None]
    float_spikes, spikes, differing = {}, {}, {}
    for name in spiking:
        fired = (real.recorded[name].cpu().numpy() * valid).astype(np.int8)
        float_spikes[name], spikes[name] = int(np.count_nonzero(fired)), int(np.count_nonzero(exact.outputs[name]))
        differing[name] = float(np.sum(fired != exact.outputs[name])) / max(float_spikes[name], 1)
    ratio = {n: spikes[n] / float_spikes[n] if float_spikes[n] else float(spikes[n] == 0) for n in spiking}
    classes = real.output.argmax(1).cpu().numpy()
    known = None if labels is None else np.asarray(labels)
    return Agreement(
        spikes, float_spikes, ratio, differing, float(np.mean(classes == exact.classes)),
        None if known is None else float(np.mean(exact.classes == known)),
        None if known is None else float(np.mean(classes == known)),
    )  # fmt: skip
