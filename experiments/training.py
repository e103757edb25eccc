"""Training: a Lightning module over a network and a split, in which every random draw is keyed by (seed, epoch,
batch).

The loader hands out batch numbers only; order, augmentation and dropout follow from the numbers, so an epoch can be
repeated from its start, bit for bit, by a process that never saw the epochs before it.
"""

from __future__ import annotations

import logging
import math
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.nn import functional

from ..datasets.augment import generator
from ..errors import RunError
from ..networks import READOUTS, Network, delay_schedule, delays_of, rate_loss
from .batch import Batch, Split
from .callbacks import Console, Keeper, SafeCheckpoints, TrainingBar, last_checkpoint
from .config import Config
from .evaluation import spiking_names
from .model import READOUT, hidden_names

EVALUATION_BATCH = 256


def key(*numbers: int) -> int:
    """One 63-bit seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


class Classifier(pl.LightningModule):
    """A network, its loss and its optimiser."""

    def __init__(self, config: Config, net: Network, train: Split, valid: Split | None) -> None:
        super().__init__()
        self.config, self.net = config, net
        self._train, self._valid = train, valid
        self._order: tuple[int, np.ndarray] | None = None
        self._spiking = hidden_names(net)
        self._rated = spiking_names(net) if config.training.rate_weight else []
        self._recorded = tuple(dict.fromkeys((READOUT, *self._spiking, *self._rated)))

    # -- data ---------------------------------------------------------------------------------------------------------

    @property
    def batches(self) -> int:
        return math.ceil(len(self._train) / self.config.training.batch_size)

    def train_dataloader(self) -> Any:
        return range(self.batches)

    def val_dataloader(self) -> Any:
        return range(0 if self._valid is None else math.ceil(len(self._valid) / EVALUATION_BATCH))

    def training_batch(self, epoch: int, batch: int) -> Batch:
        """Batch ``batch`` of epoch ``epoch``, augmented; with several devices, this one's share of it."""
        t = self.config.training
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, np.random.default_rng([t.seed, epoch]).permutation(len(self._train))
        rows = self._order[1][batch * t.batch_size : (batch + 1) * t.batch_size]
        drawn = self._train.batch(rows, generator(t.seed, epoch, batch), self.config.augment)
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self._trainer is not None else (0, 1)
        return (drawn.share(rank, world) if world > 1 else drawn).to(self.device)

    # -- steps --------------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The loss, the output [B, N] that is classified, and the spikes of hidden populations."""
        t = self.config.training
        result = self.net(batch.counts, lengths=batch.lengths, record=self._recorded)
        y, kind = result.recorded.pop(READOUT), self.config.model.readout
        valid = None if batch.lengths is None else torch.arange(len(y), device=y.device).unsqueeze(1) < batch.lengths
        # the training form of the readout also in validation, so that the two losses can be compared
        logits = READOUTS[kind](y.float() if y.dtype != torch.float64 else y, valid, batch.lengths) * t.logit_scale
        loss = functional.cross_entropy(logits, batch.targets.to(logits.dtype), label_smoothing=t.label_smoothing)
        if t.rate_weight:
            rates = [rate_loss(result.recorded[n], t.rate_low, t.rate_high, batch.lengths) for n in self._rated]
            loss = loss + t.rate_weight * torch.stack(rates).sum()
        return loss, result.output, {n: result.recorded[n] for n in self._spiking}

    def on_train_epoch_start(self) -> None:
        delay_schedule(self.net, self.current_epoch / self.config.training.epochs)

    def training_step(self, batch: int, batch_idx: int) -> Tensor:
        torch.manual_seed(key(self.config.training.seed, self.current_epoch, batch, self.global_rank))
        data = self.training_batch(self.current_epoch, batch)
        loss, output, spikes = self.loss(data)
        if not torch.isfinite(loss):
            raise RunError(self._diagnosis(f"the loss is {loss.item()}", batch, {"readout": output, **spikes}))
        self._note("train", loss, output, data, spikes)
        return loss

    def validation_step(self, batch: int, batch_idx: int) -> None:
        assert self._valid is not None
        rows = np.arange(batch * EVALUATION_BATCH, min((batch + 1) * EVALUATION_BATCH, len(self._valid)))
        data = self._valid.batch(rows).to(self.device)
        self._note("valid", *self.loss(data)[:2], data, {})

    def _note(self, stage: str, loss: Tensor, output: Tensor, data: Batch, spikes: dict[str, Tensor]) -> None:
        right = (output.argmax(1) == data.targets.argmax(1)).float().mean()
        values = {f"{stage}_loss": loss.detach().float(), f"{stage}_accuracy": right}
        values |= {f"rate_{name}": s.detach().float().mean() for name, s in spikes.items()}
        self.log_dict(
            values, on_step=False, on_epoch=True, batch_size=len(output), sync_dist=self.trainer.world_size > 1
        )

    # -- optimiser ----------------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        t = self.config.training
        neurons = {id(p) for p in self.net.populations.parameters()}
        delays = {id(delay.steps) for delay in delays_of(self.net)}
        groups: dict[str, list[Tensor]] = {"weights": [], "others": [], "neurons": [], "delays": []}
        for p in self.net.parameters():
            kind = "neurons" if id(p) in neurons else "delays" if id(p) in delays else "others"
            groups["weights" if kind == "others" and p.ndim > 1 else kind].append(p)
        rates = {"weights": t.lr, "others": t.lr, "neurons": t.lr * t.lr_tau, "delays": t.lr * t.lr_delay}
        decays = {"weights": t.weight_decay, "others": 0.0, "neurons": 0.0, "delays": 0.0}
        used = [n for n, ps in groups.items() if ps]
        optimizer = torch.optim.AdamW([{"params": groups[n], "lr": rates[n], "weight_decay": decays[n]} for n in used])
        steps = max(4, t.epochs * self.batches)  # OneCycleLR divides by zero where a phase has a single step
        if t.schedule == "onecycle":
            schedule: Any = torch.optim.lr_scheduler.OneCycleLR(
                optimizer,
                [rates[n] for n in used],
                total_steps=steps,
                pct_start=max(t.warmup, 2 / steps),
                cycle_momentum=False,
            )
        elif t.schedule == "cosine":
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        else:
            schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0, 1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.config.training.precision == "16-mixed":
            return  # the gradient scaler meets infinite gradients on purpose, and skips them
        grads = [p.grad for p in self.net.parameters() if p.grad is not None]
        if not torch.isfinite(torch.nn.utils.get_total_norm(grads)):
            raise RunError(self._diagnosis("a gradient is not finite", self.trainer.fit_loop.epoch_loop.batch_idx, {}))

    def _diagnosis(self, what: str, batch: int, shown: dict[str, Tensor]) -> str:
        bad = [f"parameter {n}" for n, p in self.net.named_parameters() if not torch.isfinite(p).all()]
        bad += [f"statistic {n}" for n, b in self.net.named_buffers() if b.is_floating_point() and torch.isnan(b).any()]
        bad += [
            f"gradient of {n}"
            for n, p in self.net.named_parameters()
            if p.grad is not None and not torch.isfinite(p.grad).all()
        ]
        bad += [f"output of {n}" for n, s in shown.items() if not torch.isfinite(s).all()]
        where = (
            f"not finite: {', '.join(bad[:6])}{', ...' if len(bad) > 6 else ''}"
            if bad
            else "all parameters and statistics are finite"
        )
        return (
            f"{what} in epoch {self.current_epoch + 1}, batch {batch + 1} of {self.batches}; {where}. "
            "The last good checkpoint is kept. Lower training.lr or training.clip, or widen model.surrogate_width, "
            "and train into a new run"
        )


@dataclass(frozen=True)
class Trained:
    """What training reached: epochs done, the epoch whose weights were kept, and its numbers."""

    epochs: int
    best_epoch: int
    metrics: dict[str, float]
    seconds: float


def fit(config: Config, net: Network, train: Split, valid: Split | None, folder: Path, console: Console) -> Trained:
    """Train ``net``, resuming from ``folder``'s last checkpoint if it has one; the kept weights are in ``folder`` at
    every moment after epoch 1.

    Raises:
        RunError: if the loss or a gradient is not finite, or the training was interrupted; the last good checkpoint
            is kept.
    """
    t = config.training
    torch.set_num_threads(t.threads)
    module = Classifier(config, net, train, valid)
    keeper = Keeper(folder, keep=t.keep if valid is not None else "last")
    extra: list[pl.Callback] = [TrainingBar(console, module.batches)]
    if t.patience and valid is not None:
        extra.append(EarlyStopping("valid_loss", patience=t.patience, mode="min", check_finite=False))
    resume = last_checkpoint(folder, console)
    started = time.perf_counter()
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        warnings.filterwarnings("ignore", message=r".*lr_scheduler\.step\(\).*before.*optimizer\.step.*")
        trainer = pl.Trainer(
            accelerator=t.accelerator,
            devices=t.devices,
            strategy="auto" if t.devices == 1 else "ddp_find_unused_parameters_true" if delays_of(net) else "ddp",
            precision=t.precision,  # type: ignore[arg-type]
            max_epochs=t.epochs,
            gradient_clip_val=t.clip or None,
            logger=TensorBoardLogger(folder, name="", version="tensorboard"),
            callbacks=[*extra, keeper],
            plugins=[SafeCheckpoints()],
            num_sanity_val_steps=0,
            log_every_n_steps=max(1, min(50, module.batches)),
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        try:
            trainer.fit(module, ckpt_path=resume)
        except SystemExit as error:  # how Lightning ends after Ctrl-C
            raise RunError(
                f"training was interrupted; the same command resumes it from the last finished epoch ({folder})"
            ) from error
    return Trained(trainer.current_epoch, keeper.best_epoch, keeper.best_metrics, time.perf_counter() - started)
