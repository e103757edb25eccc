"""Training: determinism, kill and resume, early stopping, what happens when the loss is not finite."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from ranvier.datasets import write_shd
from ranvier.errors import ConfigError, DataError, RunError
from ranvier.experiments import Config, build_network, load_config, override, train
from ranvier.experiments.data import load_training
from ranvier.experiments.runs import LAST, PREVIOUS, locked
from ranvier.experiments.training import Classifier
from ranvier.networks import delays_of, load_network

CHANNELS, CLASSES = 20, 3


def make_words(path: Path, samples: int = 48, seed: int = 0) -> Path:
    """Three classes that differ in their channels, four speakers."""
    rng = np.random.default_rng(seed)
    labels, speakers = np.arange(samples) % CLASSES, np.arange(samples) // CLASSES % 4
    times = [np.sort(rng.uniform(0, 0.1, 40)) for _ in labels]
    units = [(6 * label + rng.integers(0, 8, 40)) % CHANNELS for label in labels]
    return write_shd(path, times, units, labels, speakers, ["a", "b", "c"], channels=CHANNELS)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_words(tmp_path_factory.mktemp("words") / "words.h5")


def tiny(words: Path, epochs: int = 4) -> Config:
    config = Config(experiment="digits")
    d, m, t = config.data, config.model, config.training
    d.source, d.train, d.test, d.channels = "files", [str(words)], [str(words)], CHANNELS
    d.window, d.channel_factor, d.validation_speakers = 100.0, 2, 1
    m.hidden, m.dropout = [8], 0.3
    t.epochs, t.batch_size = epochs, 8
    config.augment.channel_shift, config.augment.drop = 2, 0.2
    return config


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(a: Path, b: Path) -> bool:
    one, two = weights(a), weights(b)
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


QUIET = Console(quiet=True)


def test_same_seed_same_weights_and_another_seed_others(words: Path, tmp_path: Path) -> None:
    first = train(tiny(words), tmp_path / "a", QUIET)
    torch.manual_seed(99)  # the global generator must not matter
    train(tiny(words), tmp_path / "b", QUIET)
    other = tiny(words)
    other.training.seed = 1
    train(other, tmp_path / "c", QUIET)
    assert same(tmp_path / "a", tmp_path / "b")
    assert not same(tmp_path / "a", tmp_path / "c")
    assert first["epochs"] == 4 and first["train_samples"] == 36 and first["validation_samples"] == 12


def test_it_learns_three_easy_classes(words: Path, tmp_path: Path) -> None:
    config = tiny(words, epochs=12)
    config.model.hidden, config.training.lr = [32], 0.02
    assert train(config, tmp_path / "run", QUIET)["accuracy"] > 0.8


CHILD = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from rich.console import Console
import test_experiments_training as t
from ranvier.experiments import train
config = t.tiny(Path({words!r}), epochs=60)
train(config, Path({run!r}), Console(quiet=True))
"""


def child(words: Path, run: Path) -> subprocess.Popen[bytes]:
    code = CHILD.format(tests=str(Path(__file__).parent), words=str(words), run=str(run))
    return subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})


def test_killed_training_resumes_to_the_same_weights(words: Path, tmp_path: Path) -> None:
    process = child(words, tmp_path / "killed")
    train(tiny(words, epochs=60), tmp_path / "whole", QUIET)
    while process.poll() is None and len(rows(tmp_path / "killed")) < 2:
        time.sleep(0.01)
    time.sleep(np.random.default_rng().uniform(0, 0.5))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (tmp_path / "killed" / "metrics.json").exists()
    assert child(words, tmp_path / "killed").wait() == 0
    assert same(tmp_path / "whole", tmp_path / "killed")
    assert without_time(rows(tmp_path / "whole")) == without_time(rows(tmp_path / "killed"))
    a, b = (json.loads((tmp_path / n / "metrics.json").read_text()) for n in ("whole", "killed"))
    assert a["format"] == 1 and a["accuracy"] == b["accuracy"] and a["epochs"] == 60


def rows(folder: Path) -> list[str]:
    path = folder / "metrics.csv"
    return path.read_text().splitlines()[1:] if path.exists() else []


def without_time(lines: list[str]) -> list[str]:
    return [line.rpartition(",")[0] for line in lines]


def stop_after(monkeypatch: pytest.MonkeyPatch, epochs: int) -> None:
    """Make training end as if the process were gone once ``epochs`` are done."""
    step = Classifier.training_step

    def interrupted(self: Classifier, batch: int, batch_idx: int) -> torch.Tensor:
        if self.current_epoch == epochs:
            raise SystemExit
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Classifier, "training_step", interrupted)


def test_delays_are_learned_then_frozen_and_resume_exactly(
    words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(words, epochs=8)
    config.model.hidden, config.model.delay_max = [8, 6], 40.0
    config.model.delay_input, config.model.delay_recurrent = "synaptic", "axonal"
    config.model.delay_kernel, config.model.delay_width = "gaussian", 10.0
    config.training.keep, config.training.engine = "last", "eager"
    start = [d.steps.detach().clone() for d in delays_of(build_network(config, CHANNELS // 2, CLASSES))]
    train(config, tmp_path / "whole", QUIET)
    # cut off in the middle of rounding, and again when the delays are frozen
    for epochs in (5, 7):
        with monkeypatch.context() as patch, pytest.raises(RunError, match="interrupted"):
            stop_after(patch, epochs)
            train(config, tmp_path / "cut", QUIET)
    train(config, tmp_path / "cut", QUIET)
    assert same(tmp_path / "whole", tmp_path / "cut")
    learned = delays_of(load_network(tmp_path / "whole"))
    assert [d.kind for d in learned] == ["synaptic", "axonal"] * 2
    assert all(torch.equal(d.steps, d.steps.round()) for d in learned)
    assert all((d.low, d.high) == (d.kind == "axonal", 4) for d in learned)
    assert any(not torch.equal(d.steps.detach(), s.round()) for d, s in zip(learned, start, strict=True))


def test_delays_have_a_rate_of_their_own_and_fixed_ones_stay(words: Path, tmp_path: Path) -> None:
    config = tiny(words)
    config.model.delay_recurrent, config.model.delay_max, config.training.engine = "axonal", 40.0, "eager"
    module = Classifier(config, build_network(config, CHANNELS // 2, CLASSES), *load_training(config))
    groups = {len(g["params"][0]): g["lr"] for g in module.configure_optimizers()["optimizer"].param_groups[-1:]}
    assert groups.keys() == {8}
    config.model.delay_learn = False
    (fixed,) = delays_of(build_network(config, CHANNELS // 2, CLASSES))
    train(config, tmp_path / "fixed", QUIET)
    assert torch.equal(delays_of(load_network(tmp_path / "fixed"))[0].whole(), fixed.whole())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["recurrent=false", "delay_recurrent=axonal"], "needs a recurrent network; set model.recurrent=true"),
        (["delay_recurrent=axonal", "delay_max=3"], "no whole number of steps"),
        (["delay_input=synaptic", "delay_kernel=gaussian"], "needs a width above 0"),
        (["delay_input=dendrtic"], "did you mean dendritic"),
    ],
)
def test_delays_that_cannot_be_are_refused(words: Path, settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        build_network(override(tiny(words), settings), 10, CLASSES)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tiny(words), tmp_path / "whole", QUIET)
    with monkeypatch.context() as patch, pytest.raises(RunError, match="interrupted; the same command resumes"):
        stop_after(patch, 3)
        train(tiny(words), tmp_path / "run", QUIET)
    (tmp_path / "run" / LAST).write_bytes(b"half a file")
    said = Console(record=True, width=500, file=StringIO())
    train(tiny(words), tmp_path / "run", said)
    text = said.export_text()
    assert "cannot be read" in text and "after epoch 2" in text
    assert same(tmp_path / "whole", tmp_path / "run")


def test_no_readable_checkpoint_is_said(words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(RunError):
        stop_after(patch, 2)
        train(tiny(words), tmp_path / "run", QUIET)
    for name in (LAST, PREVIOUS):
        (tmp_path / "run" / name).write_bytes(b"")
    with pytest.raises(RunError, match=r"no checkpoint in .* can be read"):
        train(tiny(words), tmp_path / "run", QUIET)


def test_resuming_runs_no_code_from_a_checkpoint(words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(RunError):
        stop_after(patch, 2)
        train(tiny(words), tmp_path / "run", QUIET)
    (tmp_path / "run" / PREVIOUS).unlink()
    mark = tmp_path / "mark"

    class Evil:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(mark),)

    torch.save({"callbacks": Evil()}, tmp_path / "run" / LAST)
    with pytest.raises(RunError, match="can be read"):
        train(tiny(words), tmp_path / "run", QUIET)
    assert not mark.exists()


def test_a_finished_run_is_left_alone_and_other_settings_are_refused(words: Path, tmp_path: Path) -> None:
    first = train(tiny(words, 1), tmp_path / "run", QUIET)
    stamp = (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns
    assert train(tiny(words, 1), tmp_path / "run", QUIET) == first | {"format": 1}
    assert (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns == stamp
    with pytest.raises(RunError, match=r"other settings \(training.epochs: 1 -> 2\)"):
        train(tiny(words, 2), tmp_path / "run", QUIET)
    assert train(tiny(words, 2), tmp_path / "run", QUIET, overwrite=True)["epochs"] == 2


def test_a_folder_that_is_no_run_is_never_overwritten(words: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("dear")
    with pytest.raises(RunError, match="not a run folder"):
        train(tiny(words, 1), tmp_path, QUIET, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "dear"


def test_early_stopping_stops_and_stays_stopped(words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(words, epochs=30)
    config.training.patience, config.training.lr = 2, 1e-9  # nothing gets better
    config.training.schedule = "constant"
    done = train(config, tmp_path / "run", QUIET)
    assert done["epochs"] < 30
    before = weights(tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()  # as if killed right after the last checkpoint
    again = train(config, tmp_path / "run", QUIET)
    assert again["epochs"] == done["epochs"] and len(rows(tmp_path / "run")) == done["epochs"]
    assert all(torch.equal(before[k], v) for k, v in weights(tmp_path / "run").items())


def test_nan_in_the_loss_stops_and_keeps_the_last_good_checkpoint(
    words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Classifier.training_step

    def poisoned(self: Classifier, batch: int, batch_idx: int) -> torch.Tensor:
        if self.current_epoch == 2 and batch == 1:
            with torch.no_grad():
                self.net.connection("hidden_to_readout").weight[0, 0] = float("nan")
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Classifier, "training_step", poisoned)
    message = "the loss is nan in epoch 3, batch 2 of 5; not finite: parameter connections.hidden_to_readout.weight"
    with pytest.raises(RunError, match=message):
        train(tiny(words), tmp_path / "run", QUIET)
    assert all(torch.isfinite(v).all() for v in weights(tmp_path / "run").values() if v.is_floating_point())
    kept = torch.load(tmp_path / "run" / LAST, weights_only=True)
    assert kept["callbacks"]["Keeper"]["rows"][-1]["epoch"] == 2
    assert all(torch.isfinite(v).all() for v in kept["state_dict"].values() if v.is_floating_point())


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(
    words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = Classifier.loss

    def steep(self: Classifier, batch):
        value, output, spikes = loss(self, batch)
        weight = self.net.connection("hidden_to_hidden").weight
        return (
            (value + 0 * (weight - weight.detach()).abs().sqrt().sum() if self.current_epoch else value),
            output,
            spikes,
        )

    monkeypatch.setattr(Classifier, "loss", steep)
    with pytest.raises(RunError, match=r"a gradient is not finite in epoch 2, batch 1 of 5; .*hidden_to_hidden"):
        train(tiny(words), tmp_path / "run", QUIET)


def test_validation_speakers_are_in_neither_other_split(words: Path) -> None:
    config = tiny(words)
    config.data.test_speakers = [3]
    training, validation = load_training(config)
    assert validation is not None
    assert not set(training.speakers) & set(validation.speakers)
    assert 3 not in {*training.speakers, *validation.speakers}
    config.data.validation_speakers = 3
    with pytest.raises(DataError, match="cannot hold out 3 of 3 speakers"):
        load_training(config)


def test_order_and_augmentation_follow_from_seed_epoch_and_batch(words: Path) -> None:
    config = tiny(words)
    training, validation = load_training(config)

    def batch(epoch: int, number: int) -> torch.Tensor:
        net = build_network(config, training.channels, CLASSES)
        return Classifier(config, net, training, validation).training_batch(epoch, number).counts

    assert torch.equal(batch(3, 1), batch(3, 1))
    assert not torch.equal(batch(3, 1), batch(3, 2)) and not torch.equal(batch(3, 1), batch(4, 1))


@pytest.mark.parametrize("neuron", ["LIF", "CuBaLIF", "ALIF", "AdLIF"])
def test_every_neuron_builds_trains_and_reads_back(words: Path, tmp_path: Path, neuron: str) -> None:
    config = tiny(words, epochs=1)
    config.model.neuron, config.model.hidden, config.model.bias = neuron, [6, 5], True
    net = build_network(config, 10, CLASSES)
    tau = net.neuron("hidden").get_parameter("raw_tau_mem")
    assert tau.shape == (6,) and tau.unique().numel() == 6
    train(config, tmp_path / neuron, QUIET)
    back = load_network(tmp_path / neuron)
    assert list(back.populations) == ["hidden", "hidden_2", "readout"]
    assert back(torch.zeros(4, 2, 10)).output.shape == (2, CLASSES)
    assert load_config(tmp_path / neuron) == config


def test_bf16_and_other_schedules_train(words: Path, tmp_path: Path) -> None:
    for name, precision, schedule in (("a", "bf16-mixed", "cosine"), ("b", "64-true", "constant")):
        config = tiny(words, epochs=2)
        config.training.precision, config.training.schedule = precision, schedule
        assert train(config, tmp_path / name, QUIET)["epochs"] == 2


def test_two_trainings_do_not_share_a_folder(words: Path, tmp_path: Path) -> None:
    with locked(tmp_path / "run"), pytest.raises(RunError, match="in use by another training"):
        train(tiny(words, 1), tmp_path / "run", QUIET)
