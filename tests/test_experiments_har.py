"""Activity recognition: the data of a fold, the networks, their costs, and a sweep that goes on where it stopped."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

from ranvier.errors import ConfigError, DataError, RunError
from ranvier.experiments import Config, har, override
from ranvier.experiments.config import AugmentConfig
from ranvier.experiments.evaluation import Evaluation, evaluate
from ranvier.experiments.har_data import augmented, load_test, load_training, windows_of
from ranvier.experiments.har_model import build_har, recurrent_twin
from ranvier.experiments.runs import read_json
from ranvier.experiments.selection import Candidate
from ranvier.experiments.spike_costs import spike_costs
from ranvier.experiments.workflow import export_run, verify_run
from ranvier.networks import Dense, Network, load_network
from ranvier.neurons import LIF, Integrator

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six people in UCI-HAR's layout; activities are oscillations of two speeds, in phases and gains of their own."""
    root = tmp_path_factory.mktemp("har")
    rng = np.random.default_rng(0)
    for part, people in (("train", (1, 2, 3, 4)), ("test", (5, 6))):
        folder = root / "UCI HAR Dataset" / part
        (folder / "Inertial Signals").mkdir(parents=True)
        subjects = np.repeat(people, 8)
        labels = np.tile([1, 2], len(subjects) // 2)
        np.savetxt(folder / f"subject_{part}.txt", subjects, fmt="%d")
        np.savetxt(folder / f"y_{part}.txt", labels, fmt="%d")
        time = np.arange(128) / 50
        for name in [f"{a}_{b}" for a in ("total_acc", "body_gyro") for b in "xyz"]:
            phase, gain = rng.uniform(0, 6, (len(labels), 1)), rng.uniform(0.7, 1.3, (len(labels), 1))
            rows = gain * np.sin(2 * np.pi * labels[:, None] * time + phase) + (name == "total_acc_z")
            np.savetxt(folder / "Inertial Signals" / f"{name}_{part}.txt", rows, fmt="% .5e")
    return root


def settings(root: Path, *pairs: str) -> Config:
    small = ("source=uci_har", f"root={root}", "hidden=[6]", "model.channels=2", "order=3", "epochs=2", "batch_size=8")
    return override(har.defaults(), [*small, *pairs])


# -- data -------------------------------------------------------------------------------------------------------------


def test_a_fold_s_subjects_stay_apart(published: Path) -> None:
    config = har.fold_config(settings(published), [2, 5], [3])
    train, test = load_training(config)[0], load_test(config)
    assert set(train.speakers.tolist()) == {1, 4, 6} == set(train.by.subjects) == set(test.by.subjects)
    assert set(test.speakers.tolist()) == {2, 5}
    config.data.validation_speakers = 1
    train, valid = load_training(config)
    assert valid is not None and len(set(train.speakers.tolist())) == 2 and len(set(valid.speakers.tolist())) == 1
    assert set(valid.by.subjects) == set(train.speakers.tolist()) == set(load_test(config).by.subjects)
    with pytest.raises(DataError, match="subject 2 is in both test and excluded"):
        load_test(har.fold_config(settings(published), [2, 5], [2]))
    with pytest.raises(DataError, match="subject 9 has no sample"):
        load_test(har.fold_config(settings(published), [9]))
    with pytest.raises(ConfigError, match="test_speakers"):
        load_training(settings(published))
    with pytest.raises(ConfigError, match="no sensor data"):
        windows_of(Config().data)


def test_what_a_network_reads_are_bytes_of_a_device(published: Path) -> None:
    test = load_test(har.fold_config(settings(published), [2]))
    batch = test.batch(np.array([0, 3]))
    assert tuple(batch.counts.shape) == (40, 2, 6) and batch.counts.dtype == torch.float32
    levels = batch.counts * 32
    assert torch.equal(levels, levels.round()) and float(levels.abs().max()) <= 128
    z = test.by.apply(test.windows).x[[0, 3]].transpose(1, 0, 2)
    np.testing.assert_allclose(batch.counts.numpy(), z, atol=1 / 64 + 1e-6)
    assert batch.targets.argmax(1).tolist() == test.labels[[0, 3]].tolist()


def test_shifts_show_neighbouring_windows_of_the_same_recording(published: Path) -> None:
    config = har.fold_config(settings(published, "time_later=200", "time_earlier=300"), [2])
    train = load_training(config)[0]
    rows, rng = np.arange(len(train)), torch.Generator().manual_seed(0)
    shown = train.batch(rows, rng, config.augment).counts
    own = train.batch(rows).counts
    assert not torch.equal(shown, own)  # 52 samples at 20 Hz, windows of 40: there is room for shifts
    every = train.every
    assert every is not None
    of = {(int(r), int(s)): i for i, (r, s) in enumerate(zip(every.recordings, every.starts, strict=True))}
    seen = set()
    for _ in range(30):
        picked = train._shifted(rows, config.augment, rng)
        for row, other in zip(rows, picked, strict=True):
            assert every.recordings[other] == train.windows.recordings[row]
            shift = int(every.starts[other]) - int(train.windows.starts[row])
            assert -4 <= shift <= 6
            seen.add(shift)
    assert len(seen) > 5 and len(of) == len(every)
    assert torch.equal(train.batch(rows, rng, AugmentConfig()).counts, own)


def test_a_turn_keeps_lengths_and_angles_of_all_sensors() -> None:
    x = torch.randn(40, 8, 6)
    turned = augmented(x, AugmentConfig(rotation=30.0), torch.ones(6), torch.Generator().manual_seed(0))
    assert not torch.allclose(turned, x, atol=0.1)
    a, b = (v.unflatten(2, (2, 3)) for v in (x, turned))
    torch.testing.assert_close(a.norm(dim=-1), b.norm(dim=-1))
    torch.testing.assert_close((a[:, :, 0] * a[:, :, 1]).sum(-1), (b[:, :, 0] * b[:, :, 1]).sum(-1), atol=1e-4, rtol=0)
    # one turn for the whole window
    torch.testing.assert_close((a[1:] * a[:-1]).sum(-1), (b[1:] * b[:-1]).sum(-1), atol=1e-4, rtol=0)
    with pytest.raises(ConfigError, match="threes"):
        augmented(x[..., :4], AugmentConfig(rotation=30.0), torch.ones(4), torch.Generator())


def test_gain_is_one_factor_for_each_sensor_and_noise_is_scaled() -> None:
    x, rng = torch.ones(40, 50, 6), torch.Generator().manual_seed(0)
    gained = augmented(x, AugmentConfig(sensor_gain=0.25), torch.ones(6), rng)
    assert torch.equal(gained, gained[:1].expand(40, 50, 6)) and torch.equal(gained[..., :3].amax(-1), gained[..., 0])
    assert float(gained.min()) >= 1 / 1.25 - 1e-6 and float(gained.max()) <= 1.25 + 1e-6
    assert float((gained[0, :, 0] - gained[0, :, 3]).abs().max()) > 0.05
    noise = augmented(x, AugmentConfig(sensor_noise=0.1), torch.tensor([1.0, 2, 3, 4, 5, 6]), rng) - x
    np.testing.assert_allclose(noise.std((0, 1)).numpy(), 0.1 * np.arange(1, 7), rtol=0.1)


def test_a_mirror_shows_the_watch_on_the_other_arm() -> None:
    """Referee: a watch that turns in space, and the same seen in a mirror, both read from their attitude matrices."""
    rng, step = torch.Generator().manual_seed(0), 1e-4
    axis = torch.randn(3, generator=rng, dtype=torch.float64)
    cross = torch.linalg.cross(torch.eye(3, dtype=torch.float64), axis.expand(3, 3))
    start = torch.linalg.qr(torch.randn(3, 3, generator=rng, dtype=torch.float64))[0]
    start = start * torch.linalg.det(start).sign()
    mirror = torch.diag(torch.tensor([-1.0, 1, 1], dtype=torch.float64))

    def reads(attitude: Callable[[float], Tensor], up: Tensor) -> Tensor:
        rate = attitude(0).T @ (attitude(step) - attitude(-step)) / (2 * step)
        turn = torch.stack([rate[2, 1], rate[0, 2], rate[1, 0]])
        return torch.cat([attitude(0).T @ up, turn])

    def moved(t: float) -> Tensor:
        return torch.linalg.matrix_exp(cross * t) @ start

    up = torch.randn(3, generator=rng, dtype=torch.float64)
    here = reads(moved, up)
    there = reads(lambda t: mirror @ moved(t) @ mirror, mirror @ up)
    x = here.float().expand(5, 40, 6)
    got = augmented(x, AugmentConfig(mirror=0.5), torch.ones(6), rng)
    swapped = (got != x).any(2).any(0)
    assert 8 <= int(swapped.sum()) <= 32
    assert torch.equal(got[:, ~swapped], x[:, ~swapped])
    torch.testing.assert_close(got[:, swapped], there.float().expand(5, int(swapped.sum()), 6), rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match="no mirror for the axis 'heart'"):
        augmented(x[..., :1], AugmentConfig(mirror=0.5), torch.ones(1), rng, ("heart",))


def test_a_stretch_changes_the_tempo_about_the_middle() -> None:
    """A straight line stays one through its own middle, steeper or less steep by up to a quarter; a line too steep for
    the window ends flat. Another tempo for each window, the same for all axes.
    """
    line = torch.arange(41.0).view(41, 1, 1).expand(41, 30, 6)
    rng = torch.Generator().manual_seed(0)
    got = augmented(line, AugmentConfig(time_stretch=0.25), torch.ones(6), rng)
    tempo = got[21, :, 0] - got[20, :, 0]
    assert float(tempo.min()) >= 0.8 - 1e-5 and float(tempo.max()) <= 1.25 + 1e-5 and float(tempo.std()) > 0.05
    wanted = ((torch.arange(41.0).unsqueeze(1) - 20) * tempo + 20).clamp(0, 40)
    torch.testing.assert_close(got, wanted.unsqueeze(2).expand(-1, -1, 6), atol=1e-3, rtol=0)
    one = line[:1]
    assert torch.equal(augmented(one, AugmentConfig(time_stretch=0.25), torch.ones(6), rng), one)


# -- networks ---------------------------------------------------------------------------------------------------------


def test_the_recurrent_network_has_as_many_parameters() -> None:
    for pairs in ((), ("hidden=[40]", "model.channels=8", "sensor=8")):
        config = override(har.defaults(), pairs)
        twin = recurrent_twin(config, 6, 5)
        wanted, got = (build_har(c, 6, 5).count_parameters() for c in (config, twin))
        assert twin.model.block == "recurrent" and abs(got - wanted) < 0.02 * wanted
        assert config.model.block == "l2mu"
    with pytest.raises(ConfigError, match="one hidden population"):
        build_har(override(har.defaults(), ["hidden=[8,8]"]), 6, 5)


def test_scores_are_those_of_their_definitions() -> None:
    labels, said = np.array([0, 0, 0, 0, 1, 1, 2, 2]), np.array([0, 0, 0, 1, 1, 1, 0, 2])
    found = Evaluation(labels, said, np.zeros((0, 0)), ("a", "b", "c"))
    f1 = [2 * 3 / (4 + 4), 2 * 2 / (2 + 3), 2 * 1 / (2 + 1)]
    assert har.scores(found) == pytest.approx({"accuracy": 6 / 8, "macro_f1": np.mean(f1)})


def test_a_recording_s_class_is_that_of_its_windows_mean(published: Path) -> None:
    split = load_test(har.fold_config(settings(published), [5, 6]))
    count = len(split)
    of = np.arange(count) // 4  # four windows a recording
    labels = of % 2
    outputs = np.zeros((count, 2))
    outputs[np.arange(count), 1 - labels] = 1.0  # three of four windows a little wrong
    outputs[::4] = 0.0
    outputs[np.arange(0, count, 4), labels[::4]] = np.where(of[::4] < 3, 4.0, 2.0)  # one very right, or not enough
    split = replace(split, windows=replace(split.windows, recordings=of))
    found = Evaluation(labels, outputs.argmax(1), outputs, ("a", "b"))
    assert har.recording_accuracy(found, split) == pytest.approx(3 / len(set(of.tolist())))
    assert har.recording_accuracy(replace(found, labels=np.arange(count) % 2), split) is None


# -- costs ------------------------------------------------------------------------------------------------------------


def test_operations_of_a_network_counted_by_hand() -> None:
    net = Network(dt=1.0)
    x, h, y = net.input(2), net.population(LIF(3, tau_mem=1e-3, threshold=0.5)), net.population(Integrator(1))
    net.connect(x, h, Dense(weight=torch.tensor([[1.0, 0], [1, 1], [0, 0]])))
    net.connect(h, h, Dense(weight=torch.zeros(3, 3)))
    net.connect(h, y, Dense(weight=torch.tensor([[1.0, 1, 0]])))
    net.readout(y, "sum")
    given = torch.tensor([[1.0, 0], [0, 1], [0, 0], [2, 1]]).unsqueeze(1)  # no memory: it fires when it is driven
    costs = spike_costs(net, given)
    # x: steps 1 and 2 are of 0 and 1 only: 2 + 1 accumulates, step 4 has a 2: 2 + 1 multiplies
    # h fires (1, 1, 0), (0, 1, 0), nothing, (1, 1, 0): 2 + 1 + 2 accumulates to y
    assert (costs.effective_macs, costs.effective_acs) == (3, 3 + 5)
    assert costs.dense == 4 * (6 + 9 + 3) and costs.spikes == 5
    assert costs.activation_sparsity == pytest.approx(1 - 5 / 12)
    assert costs.connection_sparsity == pytest.approx(1 - 5 / 18)
    twice = spike_costs(net, given.expand(4, 2, 2))
    assert twice == costs  # per sample
    assert costs.footprint == sum(p.numel() * 4 for p in (*net.parameters(), *net.buffers()))


def test_a_delayed_connection_multiplies_what_was_sent_before() -> None:
    net = Network(dt=1.0)
    x, y = net.input(1), net.population(Integrator(2))
    net.connect(x, y, Dense(weight=torch.ones(2, 1)), delay=2.0)
    given = torch.tensor([1.0, 1, 1, 1, 1]).view(5, 1, 1)
    assert spike_costs(net, given).effective_acs == 3 * 2


# -- sweep ------------------------------------------------------------------------------------------------------------


def test_a_sweep_is_resumed_and_summed_up(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(har, "FOLDS", 2)
    monkeypatch.setattr(har, "INNER_SUBJECTS", 1)
    config = settings(published)
    candidates = (Candidate("slow", "", ("lr=1e-5",)), Candidate("fast", "", ("lr=0.05", "epochs=5")))
    places: list[str] = []
    original = har.train_one

    def counted(one: Config, folder: Path, *rest: object) -> dict[str, object]:
        if len(places) == 10:
            raise KeyboardInterrupt
        places.append(str(folder.relative_to(tmp_path)))
        if folder.parent.name == "choice":  # judged on inner subjects; the fold's own are nowhere
            fold = int(folder.name[4])
            assert set(one.data.excluded_speakers) == set(har.fold_subjects(config)[fold])
            assert not set(one.data.test_speakers) & set(one.data.excluded_speakers)
        return original(one, folder, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(har, "train_one", counted)
    console = Console(file=io.StringIO(), width=200)
    with pytest.raises(KeyboardInterrupt):
        har.sweep(config, tmp_path, console, seeds=2, candidates=candidates)
    kept = read_json(tmp_path / har.RESULTS_FILE)
    assert len(kept["ridge"]) == 2 and len(kept["choice"]) == 8 and len(kept["runs"]) == 2
    places.clear()
    monkeypatch.setattr(har, "train_one", original)
    found = har.sweep(config, tmp_path, console, seeds=2, candidates=candidates)
    assert found["choice"] == kept["choice"] and found["runs"][:2] == kept["runs"]
    assert {(r["fold"], r["model"], r["seed"]) for r in found["runs"]} == {
        (f, m, s) for f in (0, 1) for m in har.MODELS for s in (0, 1)
    }
    assert {"format": 1, **found} == read_json(tmp_path / har.RESULTS_FILE)
    own = [r for r in found["runs"] if r["model"] == "l2mu"]
    assert found["summary"]["l2mu"]["accuracy"] == pytest.approx(np.mean([r["accuracy"] for r in own]))
    assert found["summary"]["l2mu"]["costs"]["effective_acs"] > 0
    assert sorted(s for f in found["folds"] for s in f) == [1, 2, 3, 4, 5, 6]
    for fold in (0, 1):
        inner = har.inner_subjects(config, found["folds"][fold], fold)
        assert len(inner) == 1 and inner[0] not in found["folds"][fold]
        for model in har.MODELS:
            scored = [c for c in found["choice"] if (c["fold"], c["model"]) == (fold, model)]
            best = max(scored, key=lambda c: c["accuracy"] + c["macro_f1"])
            assert found["chosen"][f"{fold}/{model}"] == best["candidate"]
    with pytest.raises(RunError, match="other settings"):
        har.train_one(override(config, ["lr=1"]), tmp_path / "fold0-l2mu-seed0", QUIET)
    with pytest.raises(RunError, match="other candidates or settings"):
        har.sweep(config, tmp_path, console, seeds=2, candidates=candidates[:1])


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler: sudo apt install gcc")
def test_a_run_reaches_a_device(published: Path, tmp_path: Path) -> None:
    config = har.fold_config(settings(published), [5, 6])
    metrics = har.train_one(config, tmp_path / "watch", QUIET)
    exported = export_run(tmp_path / "watch", ["c"], QUIET)
    assert exported["samples"] == metrics["samples"] and exported["float_accuracy"] == metrics["accuracy"]
    assert set(exported["spikes_per_population"]) == {"l2mu_u", "l2mu_m", "l2mu_h"}
    for ratio in exported["spike_ratio"].values():
        assert 0.8 < ratio < 1.25  # signed spikes are counted alike on both sides
    verified = verify_run(tmp_path / "watch", ["c"], QUIET)
    assert verified["passed"] and verified["differing_spikes"] == 0


def test_signed_spikes_count_whatever_their_sign(published: Path) -> None:
    config = har.fold_config(settings(published), [5, 6])
    net, test = build_har(config, 6, 6), load_test(config)
    found = evaluate(net, test)
    assert found.spikes_per_sample == pytest.approx(spike_costs(net, test.batch(np.arange(len(test))).counts).spikes)


def test_ridge_tells_the_activities_apart(published: Path) -> None:
    config = settings(published)
    found = har.ridge_scores(config, [1, 2], [3])
    assert found["kernel ridge"]["accuracy"] > 0.7 and set(found) == set(har.RIDGES)


def test_the_rate_regulariser_quiets_signed_populations(published: Path, tmp_path: Path) -> None:
    def rate(*pairs: str) -> float:
        config = har.fold_config(settings(published, "epochs=10", "lr=0.02", *pairs), [5, 6])
        folder = tmp_path / ("-".join(pairs) or "plain")
        har.train_one(config, folder, QUIET)
        return float(evaluate(load_network(folder), load_test(config)).rates["l2mu_u"].mean())

    loud = rate()
    assert 0.8 * loud > rate("rate_weight=100", "rate_low=0", f"rate_high={loud / 2}")
