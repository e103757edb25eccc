"""Compressing a finished run, and the table and picture of the experiment."""

from __future__ import annotations

import io
import json
from pathlib import Path
from shutil import which

import numpy as np
import pytest
from rich.console import Console

from ranvier.datasets import write_shd
from ranvier.deploy import IntegerNetwork
from ranvier.errors import ConfigError, RunError
from ranvier.experiments import Config, compress, load_config, override, train
from ranvier.experiments.compression import compress_run
from ranvier.experiments.frontier import svg
from ranvier.experiments.runs import read_json
from ranvier.experiments.workflow import export_run, verify_run
from ranvier.networks import load_network

QUIET = Console(file=io.StringIO())


def tiny(folder: Path) -> Config:
    rng = np.random.default_rng(0)
    labels, speakers = np.arange(24) % 3, np.arange(24) // 3 % 4
    times = [np.sort(rng.uniform(0, 0.1, 40)) for _ in labels]
    units = [(6 * label + rng.integers(0, 8, 40)) % 20 for label in labels]
    words = write_shd(folder / "words.h5", times, units, labels, speakers, ["a", "b", "c"], channels=20)
    config = Config(experiment="compress")
    d, m, t = config.data, config.model, config.training
    d.source, d.train, d.test, d.channels = "files", [str(words)], [str(words)], 20
    d.window, d.channel_factor, d.validation_speakers, d.dt = 100.0, 2, 0, 5.0
    m.hidden, m.surrogate_width, t.epochs, t.batch_size, t.lr = [16], 0.5, 4, 12, 0.02
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    train(tiny(folder), folder / "small", QUIET)
    return folder / "small"


@pytest.mark.skipif(not (which("cc") or which("gcc")), reason="needs a C compiler")
def test_a_run_is_compressed_into_a_run_of_its_own(run: Path) -> None:
    plain = export_run(run, ["c"], QUIET)
    found = compress_run(run, QUIET, bits=4, prune=0.5, prune_neurons=0.25)
    folder = Path(found["run"])
    assert folder == run.with_name("small-4bit-prune50-neurons25")
    config = load_config(folder)
    assert config.training.epochs == 1 and config.training.lr == pytest.approx(0.004)
    assert config.compression.start == str(run.resolve()) and config.compression.bits == 4
    net = load_network(folder)
    weight = net.connection("hidden_to_hidden").weight.detach()
    assert float((weight == 0).float().mean()) >= 0.5
    exported = export_run(folder, ["c"], QUIET)
    assert exported["weight_bits"] == 4 and plain["weight_bits"] == 8
    assert exported["constants"] < 0.6 * plain["constants"] and exported["bytes"] < plain["bytes"]
    inet = IntegerNetwork.load(folder / "integer")
    assert inet.population("hidden").size == 12
    assert max(int(np.abs(c.weights).max()) for p in inet.populations for c in p.connections) == 7
    verified = verify_run(folder, ["c"], QUIET)
    assert verified["differing_spikes"] == 0
    assert compress_run(run, QUIET, bits=4, prune=0.5, prune_neurons=0.25)["accuracy"] == found["accuracy"]


def test_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no run"):
        compress_run(tmp_path / "none", QUIET)
    with pytest.raises(ConfigError, match=r"compression\.bits"):
        compress_run(run, QUIET, bits=1)
    with pytest.raises(ConfigError, match=r"compression\.prune must be"):
        compress_run(run, QUIET, prune=1.0)
    with pytest.raises(ConfigError, match=r"name its run with compression\.start"):
        override(Config(), ["compression.prune=0.5"])
    with pytest.raises(ConfigError, match=r"takes .* channels; the data have 20"):
        config = override(tiny(tmp_path), [f"compression.start={run}", "data.channel_factor=1"])
        train(config, tmp_path / "other", QUIET)


def result(variant: str, seed: int, real: float, whole: float | None, size: int | None) -> dict[str, object]:
    return {
        "variant": variant, "base": f"seed-{seed}", "float_accuracy": real, "accuracy": whole, "float_bytes": 1000,
        "bytes": size, "weights": 10, "spikes_per_sample": 1.0,
    }  # fmt: skip


def test_losses_are_against_the_float_network_trained_as_long() -> None:
    runs = [
        result("float", 0, 0.7, None, None), result("further", 0, 0.8, None, None), result("qat-4", 0, 0.79, 0.78, 125),
        result("further", 1, 0.9, None, None), result("qat-4", 1, 0.9, 0.9, 125), result("rounded-4", 1, 0.9, 0.5, 125),
    ]  # fmt: skip
    found = compress.summary(runs)["summary"]
    assert found["qat-4"]["loss"]["mean"] == pytest.approx(1.0)
    assert found["qat-4"]["smaller"] == 8.0 and found["further"]["smaller"] == 1.0
    assert found["rounded-4"]["loss"]["mean"] == pytest.approx(40.0) and found["rounded-4"]["loss"]["sd"] is None
    curves = compress.points(found)
    assert curves["trained with rounded weights"] == [(125.0, pytest.approx(84.0), "4 bits")]
    assert curves["float"][0][:2] == (1000.0, pytest.approx(85.0))


def test_folds_are_averaged_before_seeds_are_spread() -> None:
    """Folds differ far more than seeds do, and the standard deviation is of the seeds."""
    runs = [
        {
            "variant": variant, "base": f"fold{f}-l2mu-seed{s}", "float_accuracy": 0.9, "float_macro_f1": 0.8,
            "accuracy": accuracy, "macro_f1": None, "float_bytes": 1000, "bytes": None, "weights": 10,
        }
        for variant, offset in (("further", None), ("qat-4", 0.0))
        for f in range(2) for s in range(3)
        for accuracy in [None if offset is None else (0.5, 0.7)[f] + 0.01 * s]
    ]  # fmt: skip
    found = compress.summary(runs)["summary"]["qat-4"]
    assert found["networks"] == 6
    assert found["accuracy"] == {"mean": pytest.approx(0.61), "sd": pytest.approx(0.01)}
    assert found["loss"] == {"mean": pytest.approx(29.0), "sd": pytest.approx(1.0)}
    one = compress.summary([r for r in runs if r["base"].endswith("seed0")])["summary"]["qat-4"]
    assert one["accuracy"]["sd"] == pytest.approx(0.2 / 2**0.5)


def test_the_experiment_goes_on_where_it_was(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compress, "SEEDS", 1)
    monkeypatch.setattr(compress, "VARIANTS", (compress.VARIANTS[0], compress.VARIANTS[3], compress.VARIANTS[6]))
    config, folder = tiny(tmp_path), tmp_path / "all"
    config.training.epochs = 2
    console = Console(file=io.StringIO(), width=140)
    compress.EXPERIMENT.run(config, folder, console, False)
    found = read_json(folder / compress.RESULTS_FILE)
    assert [r["variant"] for r in found["runs"]] == ["float", "further", "rounded-4", "qat-4"]
    assert found["runs"][3]["bytes"] == found["runs"][2]["bytes"] < found["runs"][0]["float_bytes"] / 2
    page = (folder / "report.html").read_text()
    assert "data:image/svg+xml;base64," in page and "trained with 4-bit weights" in page
    assert (folder / "compress.svg").read_bytes().startswith(b"<?xml")
    assert svg(compress.frontier(compress.points(found["summary"]))) == (folder / "compress.svg").read_bytes()
    (folder / compress.RESULTS_FILE).write_text(json.dumps(found | {"runs": found["runs"][:3]}))
    monkeypatch.setattr(compress, "train", None)  # qat-4 is finished in its folder, but is asked for again
    with pytest.raises(TypeError):
        compress.EXPERIMENT.run(config, folder, console, False)
    config.training.epochs = 3
    with pytest.raises(ConfigError, match="other settings"):
        compress.EXPERIMENT.run(config, folder, console, False)


def test_the_experiment_begins_from_finished_runs(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs by a pattern, whatever they were trained on; those that are not finished are refused."""
    monkeypatch.setattr(compress, "VARIANTS", (compress.VARIANTS[0], compress.VARIANTS[6]))
    config = override(compress.defaults(), [f"compression.start={run.parent}/sma*l"])
    assert compress.bases(config, tmp_path) == {"small": run}
    compress.EXPERIMENT.run(config, tmp_path / "all", Console(file=io.StringIO(), width=140), False)
    found = read_json(tmp_path / "all" / compress.RESULTS_FILE)["runs"]
    assert [(r["variant"], r["base"]) for r in found] == [("float", "small"), ("further", "small"), ("qat-4", "small")]
    assert (
        found[0]["float_accuracy"] == read_json(run / "metrics.json")["accuracy"] and found[2]["macro_f1"] is not None
    )
    own = load_config(tmp_path / "all/small/qat-4")
    assert (own.data.source, own.compression.bits, own.training.epochs) == ("files", 4, 1)
    with pytest.raises(RunError, match="there is no run 'none-of-them"):
        compress.bases(override(compress.defaults(), ["compression.start=none-of-them*"]), tmp_path)
