"""What a network does on a split:

accuracy, confusion, spikes. It runs the network read back from the run folder, not the one in memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from rich.console import Console
from torchmetrics.functional.classification import multiclass_f1_score

from ..networks import Network
from .batch import Split
from .callbacks import progress

BATCH = 128


@dataclass
class Evaluation:
    """Results over the N samples of a split.

    ``outputs`` [N, classes] and ``predictions`` [N]; ``spikes`` maps each spiking population to its spikes per sample
    [N], ``rates`` to the mean spikes per step of each neuron.
    """

    labels: np.ndarray
    predictions: np.ndarray
    outputs: np.ndarray
    classes: tuple[str, ...]
    spikes: dict[str, np.ndarray] = field(default_factory=dict)
    rates: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        return float((self.predictions == self.labels).mean())

    @property
    def macro_f1(self) -> float:
        """The mean of the classes' F1 scores, whatever their sizes."""
        truth, said = torch.from_numpy(self.labels), torch.from_numpy(self.predictions)
        return float(multiclass_f1_score(said, truth, len(self.classes), average="macro"))

    @property
    def spikes_per_sample(self) -> float:
        """Spikes of all spiking populations together, a sample."""
        return float(sum(s.mean() for s in self.spikes.values()))

    @property
    def confusion(self) -> np.ndarray:
        """[classes, classes] counts: rows are the truth, columns what was said."""
        n = len(self.classes)
        return np.bincount(self.labels * n + self.predictions, minlength=n * n).reshape(n, n)


def spiking_names(net: Network) -> list[str]:
    """The populations that send spikes, signed ones among them, in order."""
    return [n for n in net.populations if net.neuron(n).program(net.dt).output_kind in ("binary", "signed")]


def evaluate(net: Network, split: Split, console: Console | None = None) -> Evaluation:
    """Run ``net`` over ``split``, with a progress bar on ``console``. Ties go to the lowest class."""
    net.eval()
    device = next((p.device for p in net.parameters()), torch.device("cpu"))
    names = spiking_names(net)
    outputs, spikes, rates = [], {n: [] for n in names}, dict.fromkeys(names, 0.0)
    with progress(console or Console(quiet=True)) as bar, torch.no_grad():
        task = bar.add_task("Evaluating", total=len(split), note="")
        for start in range(0, len(split), BATCH):
            rows = np.arange(start, min(start + BATCH, len(split)))
            batch = split.batch(rows).to(device)
            result = net(batch.counts, lengths=batch.lengths, record=names)
            outputs.append(result.output.float().cpu().numpy())
            for n in names:
                s = (result.recorded[n] != 0).float()  # signed spikes too
                if batch.lengths is not None:
                    s = s * (torch.arange(len(s), device=device).unsqueeze(1) < batch.lengths).unsqueeze(-1)
                spikes[n].append(s.sum((0, 2)).cpu().numpy())
                rates[n] = rates[n] + s.mean(0).sum(0).cpu().numpy() / len(split)
            bar.advance(task, len(rows))
    joined = np.concatenate(outputs)
    return Evaluation(
        labels=split.labels,
        predictions=joined.argmax(1),
        outputs=joined,
        classes=split.classes,
        spikes={n: np.concatenate(s) for n, s in spikes.items()},
        rates={n: np.asarray(r) for n, r in rates.items()},
    )


def record(net: Network, split: Split, rows: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The counts [T, B, C] of some samples and what every population sends [T, B, N], for pictures."""
    batch = split.batch(rows)
    with torch.no_grad():
        result = net.eval()(batch.counts, lengths=batch.lengths, record=tuple(net.populations))
    return batch.counts.numpy(), {n: r.numpy() for n, r in result.recorded.items()}
