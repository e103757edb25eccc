"""Settings: overrides, their errors, and the file they are kept in."""

from __future__ import annotations

from pathlib import Path

import pytest

from ranvier.errors import ConfigError, RunError
from ranvier.experiments import EXPERIMENTS, Config, find_experiment, load_config, override, save_config
from ranvier.experiments.config import checked, differences, walk


def test_every_setting_has_a_sentence_and_a_legal_default() -> None:
    for experiment in EXPERIMENTS.values():
        config = experiment.defaults()
        assert checked(config) is config and config.experiment == experiment.name
    for key, _, meta in walk(Config()):
        assert len(meta["doc"]) > 8, key


def test_override_takes_full_keys_and_last_parts_and_leaves_the_original_alone() -> None:
    base = Config()
    new = override(
        base, ["training.epochs=3", "lr=1e-3", "hidden=[64,32]", "neuron=LIF", "data.relative=true", "reset=none"]
    )
    assert (new.training.epochs, new.training.lr, new.model.hidden) == (3, 1e-3, [64, 32])
    assert new.data.relative is True and new.model.neuron == "LIF" and new.model.reset == "none"
    assert differences(base, Config()) == []
    assert "training.epochs: 40 -> 3" in differences(base, new)
    assert isinstance(override(base, ["lr=1"]).training.lr, float)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("training.epohcs=3", "unknown setting 'training.epohcs'; did you mean training.epochs?"),
        ("epohcs=3", "did you mean training.epochs?"),
        ("model.nothing.here=3", "unknown setting"),
        ("epochs=many", "setting training.epochs must be a int, got 'many'"),
        ("epochs=0", "training.epochs must be at least 1, got 0"),
        ("epochs=1.5", "training.epochs"),
        ("lr=.nan", "training.lr must be at least 0, got nan"),
        ("hidden=[]", "model.hidden needs at least one size"),
        ("hidden=[8,x]", "model.hidden"),
        ("hidden=[8,0]", "model.hidden must be at least 1, got 0"),
        ("neuron=AdLIFF", "model.neuron must be one of .* got 'AdLIFF'; did you mean AdLIF?"),
        ("tau_mem=[20]", "model.tau_mem needs 2 values"),
        ("tau_mem=[20,5]", r"model.tau_mem must be \[low, high\]"),
        ("epochs", "'epochs' is not a setting; write key=value"),
        ("format=2", "not a setting"),
        ("experiment=${oc.env:HOME}", "not supported"),
        ("data.window=1", "shorter than data.dt"),
    ],
)
def test_wrong_settings_are_named(pair: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        override(Config(), [pair])


def test_config_survives_its_file(tmp_path: Path) -> None:
    config = override(Config(), ["hidden=[7,9]", "lr=0.00012345", "train=[a b.h5]"])
    save_config(config, tmp_path)
    assert load_config(tmp_path) == config
    assert (tmp_path / "config.yaml").read_text().startswith("format: 1\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("format: 2\n", "format 2; this release reads format 1"),
        ("lr: 3\n", "format None"),
        ("- 1\n", "format None"),
        ("format: 1\nmodel: {neurons: LIF}\n", "unknown setting 'model.neurons'; did you mean model.neuron"),
        ("format: 1\ntraining: {epochs: -1}\n", "training.epochs must be at least 1"),
        ("format: 1\nmodel: {neuron: !!python/object/apply:os.mkdir [x]}\n", "cannot be read"),
        ("{", "cannot be read"),
    ],
)
def test_a_wrong_config_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises((RunError, ConfigError), match=message):
        load_config(tmp_path)
    assert not Path("x").exists()


def test_an_older_file_with_fewer_settings_reads_with_defaults(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("format: 1\nmodel: {hidden: [5]}\n")
    config = load_config(tmp_path)
    assert config.model.hidden == [5] and config.training == Config().training


def test_unknown_experiment_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no experiment 'digts'; did you mean digits"):
        find_experiment("digts")
