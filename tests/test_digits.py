"""Ranvier Digits: what is shipped is what its record says, and it can be made again."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from ranvier.datasets import SpikeFile
from ranvier.datasets import digits as module
from ranvier.datasets.digits import CLASSES, DATA_FOLDER, VOICES, find_espeak, make_digits, trim_silence
from ranvier.errors import ConfigError, ToolError


@pytest.fixture(scope="module")
def record() -> dict:
    return json.loads((DATA_FOLDER / "ranvier_digits.json").read_text("utf-8"))


def test_classes_are_those_of_shd() -> None:
    assert CLASSES[:10] == ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    assert CLASSES[10:] == ("null", "eins", "zwei", "drei", "vier", "fuenf", "sechs", "sieben", "acht", "neun")


def test_the_shipped_files_are_the_recorded_ones(record: dict) -> None:
    size = 0
    for name, entry in record["files"].items():
        content = (DATA_FOLDER / name).read_bytes()
        size += len(content)
        assert hashlib.sha256(content).hexdigest() == entry["sha256"], name
        with h5py.File(DATA_FOLDER / name) as file:
            assert len(file["labels"]) == entry["samples"]
            assert sum(len(one) for one in file["spikes/times"]) == entry["spikes"]
            assert file["spikes/times"][0].dtype == np.float16
            assert file["spikes/units"][0].dtype == np.uint16
            assert tuple(key.decode() for key in file["extra/keys"]) == CLASSES
            assert np.bincount(file["labels"][:], minlength=20).tolist() == [entry["samples"] // 20] * 20
        assert len(SpikeFile(DATA_FOLDER / name)) == entry["samples"]
    assert size <= 16e6
    assert "CC BY 4.0" in (DATA_FOLDER / "LICENSE.md").read_text("utf-8")


def test_no_test_voice_is_in_training(record: dict) -> None:
    speakers = {}
    for split in ("train", "test"):
        with h5py.File(DATA_FOLDER / f"ranvier_digits_{split}.h5") as file:
            speakers[split] = set(file["extra/speaker"][:].tolist())
    assert speakers["test"] == {i for i, voice in enumerate(VOICES) if voice.held_out}
    assert speakers["train"] == {i for i, voice in enumerate(VOICES) if not voice.held_out}
    assert record["voices"] == [{"speaker": i, **voice._asdict()} for i, voice in enumerate(VOICES)]


def test_held_out_voices_are_fixed_by_their_names() -> None:
    held = sorted(voice.variant for voice in VOICES if voice.held_out)
    by_hash = sorted((voice.variant for voice in VOICES), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    assert held == sorted(by_hash[:12])
    assert not any("mb" in voice.variant for voice in VOICES)


def test_the_set_can_be_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: dict) -> None:
    if shutil.which("espeak-ng") is None:
        pytest.skip("espeak-ng is not installed (apt install espeak-ng); it is needed only to make the set again")
    _, version, _ = find_espeak()
    if version != record["espeak_ng"]:
        pytest.skip(f"the set was made with espeak-ng {record['espeak_ng']}, here is {version}")
    few = [i for i, voice in enumerate(VOICES) if voice.variant in ("adam", "steph")]
    keep = [job for job in module._jobs(few, 1, record["seed"], "espeak-ng") if job.label in (0, 15)]
    monkeypatch.setattr(
        module, "_jobs", lambda speakers, takes, seed, program: [j for j in keep if j.speaker in set(speakers)]
    )
    make_digits(tmp_path, workers=1, progress=False)
    for split in ("train", "test"):
        with (
            h5py.File(tmp_path / f"ranvier_digits_{split}.h5") as again,
            h5py.File(DATA_FOLDER / f"ranvier_digits_{split}.h5") as shipped,
        ):
            assert len(again["labels"]) == 2
            for i in range(2):
                label, speaker = again["labels"][i], again["extra/speaker"][i]
                same = (shipped["labels"][:] == label) & (shipped["extra/speaker"][:] == speaker)
                (j,) = np.flatnonzero(same)
                one, other = (
                    np.bincount(file["spikes/units"][k], minlength=700) for file, k in ((again, i), (shipped, j))
                )
                # equal to the spike on one machine; other processors round differently, which moves single spikes
                assert abs(one.sum() - other.sum()) < 0.01 * other.sum()
                assert np.corrcoef(one, other)[0, 1] > 0.99


def test_silence_is_trimmed() -> None:
    sound = np.zeros(22050, np.float32)
    sound[5000:9000] = 0.5
    sound[12000:] = 0.001
    assert 4000 <= len(trim_silence(sound, 22050)) <= 4000 + 2 * 220
    with pytest.raises(ToolError, match="silence"):
        trim_silence(np.zeros(100, np.float32), 22050)


def test_a_missing_or_wrong_espeak_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match="apt install espeak-ng"):
        make_digits(tmp_path)
    fake = tmp_path / "espeak-ng"
    fake.write_text("#!/bin/sh\necho nothing of use\n")
    fake.chmod(0o755)
    with pytest.raises(ToolError, match="nothing of use"):
        find_espeak()
    fake.write_text(f"#!/bin/sh\necho 'eSpeak NG text-to-speech: 1.40  Data at: {tmp_path}'\n")
    with pytest.raises(ToolError, match=r"lacks the voices adam, .*zac"):
        find_espeak()


@pytest.mark.parametrize("wrong", [{"train_takes": 0}, {"test_takes": 0}, {"train_voices": 36}, {"seed": -1}])
def test_numbers_out_of_range_are_refused(wrong: dict, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        make_digits(tmp_path, **wrong)
