"""The picture of delays: what it shows is what evaluation uses, before and after learning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from ranvier.cli import app
from ranvier.datasets import write_shd
from ranvier.errors import RunError
from ranvier.experiments import Config, build_network, load_config, train
from ranvier.experiments.delay_plots import Delays, describe, picture, plot_delays, run_delays
from ranvier.experiments.report import report_run
from ranvier.networks import delays_of, load_network

QUIET = Console(quiet=True)
CHANNELS, CLASSES = 10, 2


def make_words(path: Path) -> Path:
    rng = np.random.default_rng(0)
    labels, speakers = np.arange(16) % CLASSES, np.arange(16) // CLASSES % 4
    times = [np.sort(rng.uniform(0, 0.1, 40)) for _ in labels]
    units = [5 * label + rng.integers(0, 5, 40) for label in labels]
    return write_shd(path, times, units, labels, speakers, ["a", "b"], channels=CHANNELS)


def tiny(words: Path, epochs: int) -> Config:
    config = Config(experiment="digits")
    config.data.source, config.data.train, config.data.test = "files", [str(words)], [str(words)]
    config.data.channels, config.data.channel_factor, config.data.window = CHANNELS, 1, 100.0
    config.data.validation_speakers, config.model.hidden = 0, [8]
    config.training.epochs, config.training.batch_size = epochs, 8
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("delays")
    config = tiny(make_words(folder / "words.h5"), epochs=4)
    config.model.delay_input, config.model.delay_recurrent, config.model.delay_max = "dendritic", "axonal", 40.0
    config.training.keep, config.training.lr, config.training.engine = "last", 0.05, "eager"
    train(config, folder / "run", QUIET)
    return folder / "run"


def test_it_shows_the_delays_before_and_after(run: Path) -> None:
    config = load_config(run)
    found = run_delays(config, load_network(run))
    assert [(d.name, d.kind, d.low, d.high) for d in found] == [
        ("input → hidden", "dendritic", 0, 4),
        ("hidden → hidden", "axonal", 1, 4),
    ]
    start = delays_of(build_network(config, CHANNELS, CLASSES))
    for one, first, last in zip(found, start, delays_of(load_network(run)), strict=True):
        assert one.before is not None and np.array_equal(one.before, first.whole().numpy())
        assert np.array_equal(one.after, last.whole().numpy())
        assert one.changed == np.mean(one.after != one.before)
    assert any(d.changed for d in found)
    rows = describe(found)
    assert [r[2] for r in rows] == [8, 8] and rows[1][3] == "1 to 4"


def test_the_bars_count_the_delays(run: Path) -> None:
    found = run_delays(load_config(run), load_network(run))
    figure = picture(found)
    for axis, one in zip(figure.axes, found, strict=True):
        heights = {round(bar.get_x() + bar.get_width() / 2): bar.get_height() for bar in axis.containers[0]}
        assert heights == {10 * d: int((one.after == d).sum()) for d in range(one.low, one.high + 1)}  # steps of 10 ms
    assert figure.axes[-1].get_xlabel() == "delay (ms)"
    assert picture(found, steps=True).axes[-1].get_xlabel() == "delay (steps)"
    long = [Delays("a → b", "axonal", 0, 20, 1.0, np.arange(21))] * 2
    assert all(t == int(t) for axis in picture(long, steps=True).axes for t in axis.get_xticks())


def test_a_network_that_the_settings_do_not_give_has_no_beginning(run: Path) -> None:
    found = run_delays(Config(), load_network(run))
    assert found and all(d.before is None and d.changed is None for d in found)
    other = load_config(run)
    other.model.hidden = [5]
    assert all(d.before is None for d in run_delays(other, load_network(run)))
    further = load_config(run)
    further.compression.start = "another run"
    assert all(d.before is None for d in run_delays(further, load_network(run)))
    assert len(picture(found).axes) == 2


def test_the_command_writes_a_png_and_the_report_has_it(run: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["plot", "delays", str(run), "--out", str(tmp_path / "d.png")])
    assert done.exit_code == 0 and str(tmp_path / "d.png") in done.output.replace("\n", "")
    assert (tmp_path / "d.png").read_bytes().startswith(b"\x89PNG")
    assert plot_delays(run) == run / "delays.png" and (run / "delays.png").is_file()
    page = report_run(run, QUIET).read_text("utf-8")
    assert "<h2>Delays</h2>" in page and "hidden → hidden: 8 axonal delays" in page and "1 to 4" in page


def test_a_run_without_delays_is_named(tmp_path: Path) -> None:
    train(tiny(make_words(tmp_path / "words.h5"), epochs=1), tmp_path / "run", QUIET)
    with pytest.raises(RunError, match="no delays to show"):
        plot_delays(tmp_path / "run")
    assert "<h2>Delays</h2>" not in report_run(tmp_path / "run", QUIET).read_text("utf-8")
    done = CliRunner().invoke(app, ["plot", "delays", str(tmp_path / "run")])
    assert done.exit_code == 1 and "no delays to show" in done.output


def test_only_png(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"ends in .png"):
        plot_delays(run, tmp_path / "d.svg")
