"""What accompanies a training: the progress bar, the checkpoints and the run folder's files."""

from __future__ import annotations

import csv
import os
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..errors import RunError
from ..files import atomic_path
from ..networks import save_network
from .runs import HISTORY_FILE, LAST, PREVIOUS

__all__ = ["Console", "Keeper", "SafeCheckpoints", "TrainingBar", "last_checkpoint", "progress"]


def progress(console: Console) -> Progress:
    """The progress bar used everywhere; what it shows goes away when it is done."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        transient=True,
    )


class SafeCheckpoints(TorchCheckpointIO):
    """Checkpoints written beside and renamed, the one before kept; read with ``weights_only=True``, so that no code
    in them is run.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path = Path(path)
        with atomic_path(path) as temporary:
            torch.save(checkpoint, temporary)
            if path.name == Path(LAST).name and path.exists():
                # a second name for the good file first: at no moment is there none
                beside = path.with_name(f".{Path(PREVIOUS).name}.tmp")
                beside.unlink(missing_ok=True)
                os.link(path, beside)
                beside.replace(path.with_name(Path(PREVIOUS).name))

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        return torch.load(path, map_location="cpu", weights_only=True)


def last_checkpoint(folder: Path, console: Console) -> Path | None:
    """The newest checkpoint that can be read, or None for a run without any.

    Raises :class:`RunError` if there are some and none can be read.
    """
    found = [folder / name for name in (LAST, PREVIOUS) if (folder / name).exists()]
    for path in found:
        try:
            epoch = torch.load(path, map_location="cpu", weights_only=True)["callbacks"]["Keeper"]["rows"][-1]["epoch"]
        except Exception as error:  # whatever a damaged file makes torch raise
            console.print(f"[yellow]{path} cannot be read ({type(error).__name__}); trying the one before it[/yellow]")
            continue
        console.print(f"Resuming {folder} after epoch {epoch}")
        return path
    if found:
        raise RunError(f"no checkpoint in {folder / 'checkpoints'} can be read; train again with --overwrite")
    return None


class Keeper(Checkpoint):
    """At the end of each epoch: the row of metrics.csv, the network if it is the best so far, and Lightning's
    checkpoint, in this order, each atomically.

    A run killed between two of them repeats the epoch from the checkpoint and writes the same again.
    """

    def __init__(self, folder: Path, keep: str) -> None:
        self.folder, self.keep = folder, keep
        self.rows: list[dict[str, Any]] = []
        self.best_epoch, self.best_loss = 0, float("inf")
        self.stopped = False
        self._began = time.perf_counter()

    @property
    def state_key(self) -> str:
        return "Keeper"

    @property
    def best_metrics(self) -> dict[str, float]:
        return next(
            ({k: v for k, v in row.items() if k != "epoch"} for row in self.rows if row["epoch"] == self.best_epoch), {}
        )

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "best_epoch": self.best_epoch, "best_loss": self.best_loss, "stopped": self.stopped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.stopped = list(state_dict["rows"]), bool(state_dict["stopped"])
        self.best_epoch, self.best_loss = int(state_dict["best_epoch"]), float(state_dict["best_loss"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.stopped:  # early stopping had ended this run before it was killed
            trainer.should_stop = True

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._began = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        metrics = {k: float(v) for k, v in sorted(trainer.callback_metrics.items())}
        epoch = trainer.current_epoch + 1
        row = {
            "epoch": epoch,
            **metrics,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "seconds": round(time.perf_counter() - self._began, 3),
        }
        self.rows.append(row)
        loss = metrics.get("valid_loss", float("inf"))
        better = self.keep == "last" or loss < self.best_loss or self.best_epoch == 0
        if better:
            self.best_epoch, self.best_loss = epoch, loss
        self.stopped = trainer.should_stop
        if trainer.is_global_zero:
            write_rows(self.folder / HISTORY_FILE, self.rows)
            if better:
                training = pl_module.net.training
                save_network(pl_module.net, self.folder)
                pl_module.net.train(training)
        trainer.save_checkpoint(self.folder / LAST)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows of numbers as CSV, atomically."""
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


class TrainingBar(pl.Callback):
    """One bar over all batches of all epochs, with the latest losses and accuracies behind it."""

    def __init__(self, console: Console, batches: int) -> None:
        self._bar, self._batches = progress(console), batches

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            self._bar.start()
            total = (trainer.max_epochs or 0) * self._batches
            self._task = self._bar.add_task(
                "Training", total=total, completed=trainer.current_epoch * self._batches, note=""
            )

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        if trainer.is_global_zero:
            self._bar.advance(self._task)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            m = trainer.callback_metrics
            shown = [
                f"{label} {float(m[k]):.3f}"
                for k, label in (("train_loss", "loss"), ("valid_accuracy", "validation accuracy"))
                if k in m
            ]
            self._bar.update(self._task, note=f"epoch {trainer.current_epoch + 1}: {', '.join(shown)}")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._bar.stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._bar.stop()
