"""The recipes for published sets, on tiny files in their published layout: who validates, and when the test is read."""

from __future__ import annotations

import hashlib
import tarfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rich.console import Console
from typer.testing import CliRunner

from ranvier.cli import app
from ranvier.datasets import SpeechCommands, known_files, permutation, speech_commands, write_shd
from ranvier.datasets.published import SHD_FILES, SSC_FILES
from ranvier.errors import ConfigError, DataError
from ranvier.experiments import Config, build_network, find_experiment, load_config, override, published_data
from ranvier.experiments.data import load_test, load_training
from ranvier.experiments.runs import read_json
from ranvier.networks import delays_of, load_network

RECIPES = ("shd", "ssc", "gsc", "psmnist")
QUIET = Console(quiet=True)
# delays of few steps, which plain torch steps through quickly
SMALL = ["hidden=[6,6]", "epochs=1", "batch_size=32", "engine=eager", "delay_width=1", "delay_max=12"]
SHD_TRAINING, SHD_ALL = (0, 1, 2, 3, 6, 7, 8, 9, 10, 11), tuple(range(12))


def events(path: Path, speakers: tuple[int, ...], classes: int) -> int:
    """One word of each speaker and of two classes; the number of words."""
    rng = np.random.default_rng(len(speakers))
    labels = np.arange(2 * len(speakers)) % classes
    times = [np.sort(rng.uniform(0, 0.6, 80)) for _ in labels]
    units = [rng.integers(0, 700, 80) for _ in labels]
    keys = [f"word {k}" for k in range(classes)]
    write_shd(path, times, units, labels, np.repeat(speakers, 2), keys)
    return len(labels)


def make_shd(root: Path, patch: pytest.MonkeyPatch) -> None:
    for which, speakers in (("train", SHD_TRAINING), ("test", SHD_ALL)):
        patch.setitem(
            SHD_FILES, which, replace(SHD_FILES[which], samples=events(root / f"shd_{which}.h5", speakers, 20))
        )


def make_ssc(root: Path, patch: pytest.MonkeyPatch, valid: tuple[int, ...] = (7, 8)) -> None:
    for which, speakers in (("train", (1, 2, 3, 4, 5, 6)), ("valid", valid), ("test", (9, 10, 11))):
        patch.setitem(
            SSC_FILES, which, replace(SSC_FILES[which], samples=events(root / f"ssc_{which}.h5", speakers, 35))
        )


def make_gsc(root: Path, patch: pytest.MonkeyPatch) -> Path:
    """Two words by six people, in the layout of the archive; one of them is 0.4 s long."""
    folder = root / "speech_commands_v0.02"
    rng = np.random.default_rng(0)
    for word in ("_background_noise_", "yes", "no"):
        (folder / word).mkdir(parents=True)
    soundfile.write(folder / "_background_noise_" / "tap.wav", rng.normal(0, 0.1, 1600), 16_000)
    names = [f"{word}/{person:08x}_nohash_0.wav" for word in ("yes", "no") for person in range(6)]
    for i, name in enumerate(names):
        tone = np.sin(2 * np.pi * (300 + 900 * (i > 5)) * np.arange(6400 if i == 0 else 16_000) / 16_000)
        soundfile.write(folder / name, 0.3 * tone + rng.normal(0, 0.01, len(tone)), 16_000)
    (folder / "validation_list.txt").write_text("yes/00000004_nohash_0.wav\nno/00000004_nohash_0.wav\n")
    (folder / "testing_list.txt").write_text("no/00000005_nohash_0.wav\nyes/00000005_nohash_0.wav\n")
    patch.setattr(speech_commands, "RECORDINGS", len(names))
    return folder


def make_psmnist(root: Path, patch: pytest.MonkeyPatch) -> None:
    """48 and 10 pictures in MNIST's files, those of a class with the same bright row."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 48), ("t10k", 10)):
        labels = np.arange(count) % 10
        images = np.zeros((count, 28, 28), np.uint8)
        images[np.arange(count), 5 + labels] = 100 + np.arange(count)[:, None]
        head = np.array([2051, count, 28, 28], ">i4").tobytes()
        (raw / f"{part}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(
            np.array([2049, count], ">i4").tobytes() + bytes(labels.tolist())
        )


MAKERS: dict[str, Callable[[Path, pytest.MonkeyPatch], object]] = {
    "shd": make_shd,
    "ssc": make_ssc,
    "gsc": make_gsc,
    "psmnist": make_psmnist,
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RANVIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RANVIER_DATA", raising=False)
    return tmp_path / "cache"


def recipe(name: str, root: Path, *settings: str) -> Config:
    return override(find_experiment(name).defaults(), [f"data.root={root}", "data.download=false", *SMALL, *settings])


def set_up(name: str, root: Path, patch: pytest.MonkeyPatch) -> None:
    if name == "psmnist" and find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    root.mkdir()
    MAKERS[name](root, patch)


def spied(patch: pytest.MonkeyPatch, run: Path) -> list[str]:
    """A list that grows with every opening of samples: which split, and whether training had ended by then."""
    seen: list[str] = []

    def note(which: str) -> None:
        seen.append(f"{which} {'after' if (run / 'metrics.csv').exists() else 'before'}")

    def watched(original: Callable, at: int) -> Callable:
        def called(*arguments, **options):
            note(arguments[at])
            return original(*arguments, **options)

        return called

    for name, at in (("SHD", 1), ("SSC", 1), ("_commands", 1), ("_digits", 1)):
        patch.setattr(published_data, name, watched(getattr(published_data, name), at))
    return seen


@pytest.mark.parametrize("name", RECIPES)
def test_an_epoch_runs_and_the_test_is_read_once_at_the_end(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up(name, tmp_path / "data", monkeypatch)
    fewer = ["hidden=[4]", "delay_max=2"] if name == "psmnist" else []  # 784 steps
    run, config = tmp_path / "run", recipe(name, tmp_path / "data", *fewer)
    seen = spied(monkeypatch, run)
    find_experiment(name).run(config, run, QUIET, False)
    assert seen[-1] == "test after" and [s for s in seen if s.startswith("test")] == ["test after"]
    assert set(seen[:-1]) <= {"train before", "valid before"} and "train before" in seen
    found = read_json(run / "metrics.json")
    samples = [found[k] for k in ("train_samples", "validation_samples", "samples")]
    assert samples == {"shd": [16, 4, 24], "ssc": [12, 4, 6], "gsc": [8, 2, 2], "psmnist": [38, 10, 10]}[name]
    assert found["epochs"] == 1 and np.isfinite(found["valid_loss"])
    assert load_config(run) == config
    delays = delays_of(load_network(run))
    kind = "synaptic" if name == "gsc" else "axonal"
    assert [d.kind for d in delays] == [kind] * len(config.model.hidden)


@pytest.mark.parametrize("name", RECIPES)
def test_nobody_is_in_two_splits(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(name, tmp_path / "data", monkeypatch)
    config = recipe(name, tmp_path / "data")
    training, validation = load_training(config)
    test = load_test(config)
    assert validation is not None and len(test)
    assert training.classes == validation.classes == test.classes
    if name == "psmnist":  # no writers are named; no picture is in two splits
        parts = [{bytes(s.batch(np.array([i])).counts.numpy()) for i in range(len(s))} for s in (training, validation)]
        assert not parts[0] & parts[1] and len(parts[0] | parts[1]) == 48
        return
    people = [set(s.speakers.tolist()) for s in (training, validation, test)]
    assert not people[0] & people[1] and people[0] and people[1]
    if name != "shd":  # the published test of SHD has words of all speakers
        assert not (people[0] | people[1]) & people[2]
    else:
        assert len(people[1]) == 2 and people[0] | people[1] == set(SHD_TRAINING) and people[2] == set(SHD_ALL)
        other = load_training(recipe(name, tmp_path / "data", "seed=1"))[1]
        assert other is not None and set(other.speakers.tolist()) != people[1]


def test_the_recipes_are_the_published_ones() -> None:
    sizes = {"shd": (140, 20), "ssc": (140, 35), "gsc": (40, 35), "psmnist": (1, 10)}
    nets = {n: build_network(find_experiment(n).defaults(), *sizes[n]) for n in RECIPES}
    # DelRec's 374,819 on SSC count a spread beside each of the 768 delays
    assert nets["ssc"].count_parameters() == 374_819 - 768
    assert abs(nets["psmnist"].count_parameters() - 156_000) < 3_000
    highest = {n: {d.high for d in delays_of(net)} for n, net in nets.items()}
    assert highest == {"shd": {40}, "ssc": {40}, "gsc": {30}, "psmnist": {40}}
    # the leaks that the recipes give as 1 - 1 / steps
    for name, kept in (("shd", 1 - 1 / 1.05), ("ssc", 0.5), ("gsc", 1 / 3), ("psmnist", 0.5)):
        found = nets[name].neuron("hidden").values(nets[name].dt)["decay_mem"]
        np.testing.assert_allclose(found.detach().numpy(), kept, rtol=1e-4)


def test_permuted_pixels_are_read_as_bytes_in_the_fixed_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up("psmnist", tmp_path / "data", monkeypatch)
    test = load_test(recipe("psmnist", tmp_path / "data"))
    batch = test.batch(np.array([3]))
    assert tuple(batch.counts.shape) == (784, 1, 1) and int(batch.targets.argmax()) == 3
    picture = np.zeros((28, 28), np.uint8)
    picture[8] = 103
    np.testing.assert_array_equal(batch.counts[:, 0, 0].numpy(), picture.ravel()[permutation()])


@pytest.mark.parametrize("name", ["shd", "ssc", "gsc"])
def test_missing_files_are_named_with_where_they_come_from(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {
        "shd": ("shd_train.h5", "shd_test.h5", "https://zenkelab.org/datasets/shd_test.h5.zip"),
        "ssc": ("ssc_train.h5", "ssc_valid.h5", "ssc_test.h5", "https://zenkelab.org/datasets/ssc_valid.h5.zip"),
        "gsc": ("validation_list.txt", "testing_list.txt", speech_commands.URL),
    }[name]
    done = CliRunner().invoke(app, ["train", name, "data.download=false", "--run", "x"], catch_exceptions=False)
    assert done.exit_code == 1 and done.stderr.count("\n") == 1 and done.stderr.startswith("ranvier: data: ")
    assert all(part in done.stderr for part in files)
    assert not (tmp_path / "runs").exists()  # before anything is trained


def test_only_what_is_missing_is_named_and_the_data_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up("shd", tmp_path / "data", monkeypatch)
    monkeypatch.setenv("RANVIER_DATA", str(tmp_path / "data"))
    config = override(find_experiment("shd").defaults(), ["data.download=false"])
    assert len(load_test(config)) == 24
    (tmp_path / "data" / "shd_test.h5").unlink()
    with pytest.raises(DataError, match=r"shd_test\.h5 not found") as caught:
        published_data.prepare(config)
    assert "shd_train" not in str(caught.value)


def test_a_published_file_cut_short_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    for which in SHD_FILES:
        events(tmp_path / "data" / f"shd_{which}.h5", (0, 1), 20)
    with pytest.raises(DataError, match="has 4 samples, but the published file has 8156"):
        load_training(recipe("shd", tmp_path / "data"))


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        ("shd", "test_speakers=[4]", "has a published test set; leave out data.test_speakers"),
        ("gsc", "channel_factor=2", "needs data.channel_factor=1"),
        ("psmnist", "relative=true", "data.relative=false"),
    ],
)
def test_settings_that_a_set_cannot_have(tmp_path: Path, name: str, setting: str, message: str) -> None:
    for load in (load_training, load_test):
        with pytest.raises(ConfigError, match=message):
            load(recipe(name, tmp_path, setting))


def test_a_speaker_on_both_lists_of_ssc_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_ssc(tmp_path, monkeypatch, valid=(6, 7))
    with pytest.warns(UserWarning, match="1 speakers both in training and in validation"):
        load_training(recipe("ssc", tmp_path))


# -- Speech Commands -------------------------------------------------------------------------------------------------


def test_speech_commands_are_read_as_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_gsc(tmp_path, monkeypatch)
    found = SpeechCommands.read(tmp_path, download=False)
    assert found["train"].classes == ("no", "yes") and [len(s) for s in found.values()] == [8, 2, 2]
    assert found["valid"].labels.tolist() == [0, 1] and set(found["valid"].speakers) == {4}
    assert SpeechCommands.read(folder, download=False)["test"].files == found["test"].files
    levels = found["train"].levels(progress=False)
    assert levels.channels == 40 and levels.steps == 100
    short = found["train"].files.index(folder / "yes" / "00000000_nohash_0.wav")
    assert levels.lengths[short] == 40 and set(np.delete(levels.lengths, short)) == {100}
    loudest = levels.batch(np.arange(8)).x[30].float().argmax(1).numpy()
    assert len(set(loudest[levels.labels == 0])) == len(set(loudest[levels.labels == 1])) == 1
    assert loudest[levels.labels == 0][0] > loudest[levels.labels == 1][0]  # no: 1200 Hz, yes: 300 Hz


def test_levels_are_kept_and_a_damaged_file_is_made_again(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_gsc(tmp_path, monkeypatch)
    split = SpeechCommands.read(tmp_path, download=False)["train"]
    first = split.levels(progress=False)
    made: list[int] = []
    original = speech_commands.log_mel
    monkeypatch.setattr(speech_commands, "log_mel", lambda *a: made.append(1) or original(*a))
    again = split.levels(progress=False)
    assert not made and np.array_equal(again.rows, first.rows) and isinstance(again.rows, np.memmap)
    (rows,) = (own_cache / "mel").glob("*-rows.npy")
    rows.write_bytes(rows.read_bytes()[:-100])
    assert np.array_equal(split.levels(progress=False).rows, first.rows) and len(made) == 8
    split.levels(bands=20, progress=False)
    assert len(made) == 16


def test_speech_commands_that_are_not_whole_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_gsc(tmp_path, monkeypatch)

    def refused(message: str) -> None:
        with pytest.raises(DataError, match=message):
            SpeechCommands.read(tmp_path, download=False)

    listed = folder / "validation_list.txt"
    text = listed.read_text()
    listed.write_text(text + "yes/00000009_nohash_0.wav\n")
    refused("00000009_nohash_0.wav: validation_list.txt lists it, but it is not there")
    listed.write_text(text + "yes/00000001_nohash_0.wav\n")
    refused("speaker 1 is in both train and valid")
    listed.write_text(text)
    (folder / "no" / "00000002_nohash_0.wav").rename(folder / "no" / "two.wav")
    refused("two.wav: its name says no speaker")
    (folder / "no" / "two.wav").unlink()
    refused("11 recordings, but v0.02 has 12")


def test_the_archive_is_checked_and_unpacked_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_gsc(tmp_path / "made", monkeypatch)
    root = tmp_path / "root"
    root.mkdir()
    archive = root / Path(speech_commands.URL).name
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(folder, ".")
    with pytest.raises(DataError, match=rf"md5 is .*, not {speech_commands.MD5}"):
        SpeechCommands.read(root, download=False)
    monkeypatch.setattr(speech_commands, "MD5", hashlib.md5(archive.read_bytes()).hexdigest())
    left = root / ".speech_commands_v0.02.unpacking"  # by an interruption
    left.mkdir()
    assert len(SpeechCommands.read(root, download=False)["train"]) == 8
    assert not left.exists() and (root / "speech_commands_v0.02" / "yes").is_dir()


def test_a_download_that_fails_says_where_the_archive_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(known_files, "download_url", offline)
    with pytest.raises(DataError, match="cannot be downloaded: no route to host") as caught:
        SpeechCommands.read(tmp_path)
    assert speech_commands.URL in str(caught.value)


# -- real files ------------------------------------------------------------------------------------------------------


def test_the_shd_recipe_on_real_spikes_in_its_layout(shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    train, test = (shared_data(f"fsdd/fsdd_spikes_{which}.h5") for which in ("train", "test"))
    settings = ["data.source=files", f"data.train=[{train}]", f"data.test=[{test}]", "validation_speakers=1"]
    config = override(
        find_experiment("shd").defaults(), [*settings, *SMALL, "batch_size=128", "window=700", "dt=20", "delay_max=40"]
    )
    training, validation = load_training(config)
    assert validation is not None
    people = [set(s.speakers.tolist()) for s in (training, validation, load_test(config))]
    assert not people[0] & people[1] and not (people[0] | people[1]) & people[2]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # no bin of a real word is cut off
        find_experiment("shd").run(config, tmp_path / "run", QUIET, False)
    found = read_json(tmp_path / "run" / "metrics.json")
    assert (found["train_samples"] + found["validation_samples"], found["samples"]) == (420, 140)
