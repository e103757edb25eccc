"""Reading recordings, and a folder of them turned into one file of spikes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile

from ranvier.datasets import SpikeFile
from ranvier.datasets.audio import Recording, convert, from_audio, key_seed, read_audio
from ranvier.datasets.fsdd import convert_fsdd
from ranvier.errors import ConfigError, DataError

CHANNELS = 20  # every 36th place: enough to tell sounds apart, and its table is made in a moment


def tone(frequency: float, rate: int, seconds: float = 0.2, gain: float = 0.3) -> np.ndarray:
    return gain * np.sin(2 * np.pi * frequency * np.arange(int(rate * seconds)) / rate)


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """Two classes, three files, three rates, WAV and FLAC, mono and stereo."""
    for name, frequency, rate in (("high/anna_1.wav", 3000, 48000), ("high/ben_1.flac", 2500, 44100)):
        path = tmp_path / "words" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, tone(frequency, rate), rate)
    path = tmp_path / "words/low/anna_2.WAV"
    path.parent.mkdir()
    soundfile.write(path, np.stack([tone(300, 16000), 0.5 * tone(300, 16000)], axis=1), 16000)
    (tmp_path / "words/README.txt").write_text("not a class")
    (tmp_path / "words/low/notes.txt").write_text("not a recording")
    return tmp_path / "words"


def test_formats_and_rates_are_read_and_channels_averaged(words: Path) -> None:
    samples, rate = read_audio(words / "low/anna_2.WAV")
    assert rate == 16000
    np.testing.assert_allclose(samples, 0.75 * tone(300, 16000), atol=1e-4)
    samples, rate = read_audio(words / "high/ben_1.flac")
    assert (rate, len(samples)) == (44100, 8820)


def test_a_folder_becomes_a_spike_file(words: Path, tmp_path: Path) -> None:
    written = from_audio(
        words,
        tmp_path / "words.h5",
        speaker_pattern=r"(?P<speaker>[a-z]+)_\d",
        channels=CHANNELS,
        workers=1,
        progress=False,
    )
    assert (written.samples, written.classes, written.speakers) == (3, 2, 2)
    with h5py.File(written.path) as file:
        assert [key.decode() for key in file["extra/keys"]] == ["high", "low"]
        assert file["labels"][:].tolist() == [0, 0, 1]
        assert file["extra/speaker"][:].tolist() == [0, 1, 0]
        assert [name.decode() for name in file["extra/speaker_names"]] == ["anna", "ben"]
        units = [np.median(one) for one in file["spikes/units"]]
        assert file["spikes/times"][0].dtype == np.float16
        assert sum(len(one) for one in file["spikes/times"]) == written.spikes > 50
    assert units[2] > units[0] + 3  # low tones peak farther from the base
    assert len(SpikeFile(written.path)) == 3


def test_spikes_depend_on_the_path_and_seed_alone(words: Path, tmp_path: Path) -> None:
    def spikes(out: str, seed: int = 0, workers: int = 1) -> np.ndarray:
        path = from_audio(words, tmp_path / out, channels=CHANNELS, seed=seed, workers=workers, progress=False).path
        with h5py.File(path) as file:
            return file["spikes/times"][len(file["labels"]) - 1]  # low/anna_2.WAV, whatever else is there

    before = spikes("a.h5")
    np.testing.assert_array_equal(before, spikes("b.h5", workers=2))
    soundfile.write(words / "high/carl_1.wav", tone(1000, 48000), 48000)
    np.testing.assert_array_equal(before, spikes("c.h5"))
    assert not np.array_equal(before, spikes("d.h5", seed=1))


def test_a_bad_recording_is_named_and_the_old_file_stays(words: Path, tmp_path: Path) -> None:
    out = tmp_path / "words.h5"
    out.write_bytes(b"the old file")
    (words / "high/bad.flac").write_bytes(b"fLaC" + bytes(100))
    with pytest.raises(DataError, match=r"high/bad\.flac.*damaged"):
        from_audio(words, out, channels=CHANNELS, workers=1, progress=False)
    with pytest.raises(DataError, match=r"high/bad\.flac"):  # and out of another process too
        from_audio(words, out, channels=CHANNELS, workers=2, progress=False)
    assert out.read_bytes() == b"the old file"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["words", "words.h5"]


def test_truncated_files_are_refused(words: Path) -> None:
    for name in ("high/anna_1.wav", "high/ben_1.flac"):
        path = words / name
        path.write_bytes(path.read_bytes()[:-700])
        with pytest.raises(DataError, match=path.name):
            read_audio(path)


def test_what_is_wrong_with_a_recording_is_said(words: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nobody\.wav: no such file"):
        read_audio(words / "nobody.wav")
    with pytest.raises(DataError, match=r"anna_1\.wav: sampled at 48000 Hz where 16000 Hz"):
        read_audio(words / "high/anna_1.wav", rate=16000)
    with pytest.raises(DataError, match=r"anna_1\.wav: sampled at 48000 Hz"):
        from_audio(words, tmp_path / "o.h5", rate=44100, channels=CHANNELS, workers=1, progress=False)
    soundfile.write(words / "high/empty.wav", np.zeros(0), 48000)
    with pytest.raises(DataError, match=r"empty\.wav: holds no samples"):
        read_audio(words / "high/empty.wav")
    (words / "high/empty.wav").unlink()
    soundfile.write(words / "high/silent.wav", np.zeros(4800), 48000)
    with pytest.raises(DataError, match=r"silent\.wav: every sample is 0"):
        from_audio(words, tmp_path / "o.h5", channels=CHANNELS, workers=1, progress=False)
    soundfile.write(words / "high/silent.wav", np.full(4800, np.nan), 48000, subtype="FLOAT")
    with pytest.raises(DataError, match=r"silent\.wav: sample 0 is nan"):
        from_audio(words, tmp_path / "o.h5", channels=CHANNELS, workers=1, progress=False)


def test_what_is_wrong_with_a_folder_is_said(words: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.h5"
    with pytest.raises(DataError, match="no such folder"):
        from_audio(tmp_path / "nowhere", out)
    (tmp_path / "bare").mkdir()
    with pytest.raises(DataError, match="holds no folders"):
        from_audio(tmp_path / "bare", out)
    (words / "none").mkdir()
    with pytest.raises(DataError, match=r"none: holds no \.wav"):
        from_audio(words, out)
    (words / "none").rmdir()
    with pytest.raises(DataError, match="does not match"):
        from_audio(words, out, speaker_pattern="(zoe)")
    with pytest.raises(ConfigError, match="no group"):
        from_audio(words, out, speaker_pattern="anna")
    with pytest.raises(ConfigError, match="not a regular expression"):
        from_audio(words, out, speaker_pattern="(")
    with pytest.raises(ConfigError, match="workers"):
        from_audio(words, out, workers=0)
    assert not out.exists()


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(
        "import os, sys, time\n"
        "from ranvier.datasets.audio import convert\n"
        "def load(job):\n"
        "    open(os.path.join(sys.argv[1], str(os.getpid())), 'w').close()\n"
        "    time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    convert(load, [1, 2], channels=2, workers=2, progress=False)\n"
    )
    (tmp_path / "pids").mkdir()
    parent = subprocess.Popen([sys.executable, script, tmp_path / "pids"])
    try:
        until = time.monotonic() + 60
        while (
            len(pids := [int(entry.name) for entry in (tmp_path / "pids").iterdir()]) < 2 and time.monotonic() < until
        ):
            time.sleep(0.1)
        assert len(pids) == 2
    finally:
        parent.kill()
        parent.wait()
    until = time.monotonic() + 20
    while (left := [pid for pid in pids if Path(f"/proc/{pid}").exists()]) and time.monotonic() < until:
        time.sleep(0.1)
    assert not left


def load_tone(frequency: int) -> Recording:
    return Recording(tone(frequency, 48000), 48000, str(frequency), key_seed(0, str(frequency)))


def test_order_of_results_is_the_order_of_jobs() -> None:
    alone = [convert(load_tone, [f], channels=CHANNELS, workers=1, progress=False)[0] for f in (400, 4000, 900)]
    together = convert(load_tone, [400, 4000, 900], channels=CHANNELS, workers=1, progress=False)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.times, other.times)


def archive(path: Path, **changes: object) -> Path:
    sounds = [(10000 * tone(f, 8000)).astype(np.int16) for f in (400, 900, 1500)]
    arrays: dict[str, object] = {
        "x": np.concatenate(sounds),
        "offsets": np.cumsum([0] + [len(one) for one in sounds]),
        "digit": np.array([3, 1, 4], np.uint8),
        "speaker": np.array([0, 1, 1], np.uint8),
        "index": np.array([0, 0, 7], np.uint8),
        "speaker_names": np.array(["ann", "bob"]),
        "sample_rate": np.int64(8000),
    }
    np.savez(path, **{**arrays, **changes})  # type: ignore[arg-type]
    return path


def test_fsdd_is_converted_once(tmp_path: Path) -> None:
    npz, out = archive(tmp_path / "fsdd.npz"), tmp_path / "fsdd.h5"
    convert_fsdd(npz, out, workers=1, progress=False)
    with h5py.File(out) as file:
        assert file["labels"][:].tolist() == [3, 1, 4]
        assert file["extra/speaker"][:].tolist() == [0, 1, 1]
        assert file["extra/index"][:].tolist() == [0, 0, 7]
        assert [name.decode() for name in file["extra/speaker_names"]] == ["ann", "bob"]
    stamp = out.stat().st_mtime_ns
    convert_fsdd(npz, out, workers=1, progress=False)
    assert out.stat().st_mtime_ns == stamp
    convert_fsdd(npz, out, workers=1, progress=False, limit=2)
    with h5py.File(out) as file:
        assert file["labels"][:].tolist() == [3, 1]


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "o.h5"
    with pytest.raises(DataError, match="no such file"):
        convert_fsdd(tmp_path / "none.npz", out)
    (tmp_path / "bad.npz").write_bytes(b"PK not a zip")
    with pytest.raises(DataError, match=r"bad\.npz"):
        convert_fsdd(tmp_path / "bad.npz", out)
    with pytest.raises(DataError, match="offsets do not cut"):
        convert_fsdd(archive(tmp_path / "cut.npz", offsets=np.array([0, 10, 5, 20])), out)
    with pytest.raises(DataError, match="speaker has 1 entries"):
        convert_fsdd(archive(tmp_path / "cut.npz", speaker=np.array([0])), out)
    assert not out.exists()
