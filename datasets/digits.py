"""Ranvier Digits: spoken digits in English and German that this project makes itself, as spikes in SHD's layout.

espeak-ng speaks the words in many voices; the inner-ear model of ``cochlea.py`` turns them into spikes. Nobody's
recording is in it, so it may be shipped (CC BY 4.0), and whoever has espeak-ng can make as much of it as he likes.

The voices. espeak-ng 1.51 ships about a hundred variants. Left out are whispers, sound effects (announcer, Demonic,
robots, RicishayMax) and a speed test; MBROLA voices are not used. Of what remains, walking in alphabetical order, a
variant is taken if its spikes differ from those of every variant taken before (root mean square over 10 x 35
relative-time counts, of their square roots, of four words at equal pitch and speed: more than 0.45, where steph,
steph2 and steph3 differ by 0.11 to 0.16); so no test voice has a twin in training. That gives the 47 of ``VARIANTS``.
The quarter of them whose SHA-256 of the name is smallest is the test set: fixed by names alone, before anything was
trained. English dialects go round in that order.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import soundfile

from ..errors import ConfigError, ToolError
from ..files import atomic_path
from .audio import Recording, convert, key_seed, write_trains
from .cochlea import SHD_CHANNELS, SHD_RATE
from .known_files import digest

DATA_VERSION = "1"
SEED = 2026
DATA_FOLDER = Path(__file__).parent / "data"

ENGLISH = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
GERMAN = ("null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun")
#: The 20 classes in SHD's order. SHD spells its keys in ASCII.
CLASSES = ENGLISH + tuple(word.replace("ü", "ue") for word in GERMAN)

DIALECTS = (
    "en-gb",
    "en-us",
    "en-gb-scotland",
    "en-gb-x-rp",
    "en-029",
    "en-gb-x-gbclan",
    "en-us-nyc",
    "en-gb-x-gbcwmd",
)
# fmt: off
VARIANTS = (
    "adam", "Alex", "Alicia", "Andrea", "Andy", "anika", "Annie", "antonio", "aunty", "belinda", "boris", "croak",
    "david", "Denis", "ed", "edward", "f1", "f2", "f4", "Gene", "grandma", "gustave", "Henrique", "iven", "Jacky",
    "kaukovalta", "klatt3", "Lee", "linda", "m2", "m3", "m4", "m8", "marcelo", "Marco", "Mario", "Michael", "Mike",
    "Nguyen", "pablo", "paul", "pedro", "shelby", "steph", "Storm", "travis", "zac",
)
_FEMALE = {"Alicia", "Andrea", "Annie", "anika", "aunty", "belinda", "f1", "f2", "f4", "grandma", "linda", "steph"}
# fmt: on

# How one voice varies from take to take. SHD's speakers take about 0.8 s a word; these speeds give about 0.45 s, which
# keeps the set small.
_SPEED_WPM = (120, 190)
_PITCH = (38, 62)
_RANGE_PERCENT = (50, 150)
_ENDINGS = (".", ".", "?", "!", ",")
_FRAME_S = 0.01
_SILENCE = 0.01  # 40 dB below the loudest frame


class Voice(NamedTuple):
    """One speaker: espeak-ng's variant, its English dialect, its gender for espeak-ng, and whether it is test."""

    variant: str
    dialect: str
    gender: str
    held_out: bool


def _make_voices() -> tuple[Voice, ...]:
    order = sorted(VARIANTS, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    rank = {name: position for position, name in enumerate(order)}
    return tuple(
        Voice(
            name,
            DIALECTS[rank[name] % len(DIALECTS)],
            "female" if name in _FEMALE else "male",
            rank[name] < round(len(VARIANTS) / 4),
        )
        for name in VARIANTS
    )


#: Every voice; a sample's speaker is its index here.
VOICES = _make_voices()


class _Job(NamedTuple):
    speaker: int
    label: int
    take: int
    seed: int
    program: str

    @property
    def key(self) -> str:
        return f"{VOICES[self.speaker].variant}/{CLASSES[self.label]}/{self.take}"


def find_espeak() -> tuple[str, str, Path]:
    """The path of espeak-ng, its version and its data folder.

    Raises:
        ToolError: it is not installed, does not run, or lacks one of the voices.
    """
    program = shutil.which("espeak-ng")
    if program is None:
        raise ToolError(
            "espeak-ng is not installed; it is needed only to make Ranvier Digits: sudo apt install espeak-ng"
        )
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    match = re.search(r"text-to-speech: (\S+)\s+Data at: (.+)", answer.stdout)
    if match is None:
        raise ToolError(
            f"{program} --version gave {answer.stdout!r} {answer.stderr!r}; a version and a data folder were expected"
        )
    folder = Path(match[2].strip())
    missing = [name for name in VARIANTS if not (folder / "voices" / "!v" / name).is_file()]
    if missing:  # it would speak in its default voice without a word
        raise ToolError(f"espeak-ng {match[1]} at {folder} lacks the voices {', '.join(missing)}; use version 1.51")
    return program, match[1], folder


def speak(
    word: str,
    language: str,
    variant: str,
    *,
    speed: int,
    pitch: int,
    range_percent: int,
    ending: str,
    program: str = "espeak-ng",
) -> tuple[npt.NDArray[np.float32], int]:
    """One word spoken by espeak-ng, its silent ends cut off.

    Args:
        word: plain text.
        language: one of espeak-ng's languages, such as "de" or "en-us".
        variant: one of its voice variants.
        speed: words per minute.
        pitch: 0..99, 50 is the voice's own.
        range_percent: how far the pitch moves, 100 is the voice's own.
        ending: punctuation, which sets the tune.
        program: the path of espeak-ng.

    Returns:
        (samples float32 [samples], rate in Hz).

    Raises:
        ToolError: it failed, or gave nothing that can be heard.
    """
    text = f'<prosody range="{range_percent}%">{word}{ending}</prosody>'
    voice = f"{language}+{variant}"
    command = [program, "-m", "-z", "-b", "1", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", text]
    answer = subprocess.run(command, capture_output=True, check=False)
    try:
        samples, rate = soundfile.read(io.BytesIO(answer.stdout), dtype="float32")
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise ToolError(f"espeak-ng gave no sound for {word!r} in voice {voice}: {answer.stderr.decode()!r}") from error
    return trim_silence(np.asarray(samples, np.float32), rate, f"{word!r} in voice {voice}"), rate


def trim_silence(samples: npt.NDArray[np.float32], rate: int, name: str = "audio") -> npt.NDArray[np.float32]:
    """Cut off the leading and trailing frames of 10 ms that are more than 40 dB below the loudest.

    Raises:
        ToolError: nothing remains.
    """
    size = max(int(rate * _FRAME_S), 1)
    starts = np.arange(0, len(samples), size)
    energy = (
        np.sqrt(np.add.reduceat(np.square(samples, dtype=np.float64), starts) / size) if len(starts) else np.zeros(1)
    )
    if energy.max() == 0:
        raise ToolError(f"{name}: silence")
    loud = np.flatnonzero(energy > _SILENCE * energy.max())
    return samples[starts[loud[0]] : starts[loud[-1]] + size]


def _load(job: _Job) -> Recording:
    voice = VOICES[job.speaker]
    seed = key_seed(job.seed, job.key)
    draw = np.random.default_rng(seed)
    german = job.label >= len(ENGLISH)
    samples, rate = speak(
        (ENGLISH + GERMAN)[job.label],
        "de" if german else voice.dialect,
        voice.variant,
        speed=int(draw.integers(*_SPEED_WPM, endpoint=True)),
        pitch=int(draw.integers(*_PITCH, endpoint=True)),
        range_percent=int(draw.integers(*_RANGE_PERCENT, endpoint=True)),
        ending=_ENDINGS[int(draw.integers(len(_ENDINGS)))],
        program=job.program,
    )
    return Recording(samples, rate, job.key, seed)


def make_digits(
    folder: str | os.PathLike[str],
    *,
    train_takes: int = 1,
    test_takes: int = 1,
    train_voices: int | None = None,
    seed: int = SEED,
    workers: int | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Make Ranvier Digits: ``ranvier_digits_train.h5``, ``_test.h5`` and ``ranvier_digits.json`` in ``folder``.

    Every voice says each of the 20 words ``takes`` times, at another speed, pitch, pitch range and tune each time. A
    sample depends on its voice, word, take and the seed alone, so a larger set contains the smaller one, and with one
    version of espeak-ng and of the numerical libraries it comes out the same again.

    Args:
        folder: where to write; files of these names are replaced.
        train_takes: takes per training voice and word.
        test_takes: takes per held-out voice and word.
        train_voices: use only so many of the 35 training voices.
        seed: 0 to 2^64 - 1.
        workers: processes; by default one per CPU.
        progress: show progress bars on stderr.

    Returns:
        What ``ranvier_digits.json`` holds.

    Raises:
        ToolError: espeak-ng is missing or lacks a voice.
        ConfigError: a number of takes or voices out of range.
    """
    available = sum(not voice.held_out for voice in VOICES)
    for name, number, least, most in (
        ("train_takes", train_takes, 1, 10_000),
        ("test_takes", test_takes, 1, 10_000),
        ("train_voices", available if train_voices is None else train_voices, 1, available),
        ("seed", seed, 0, 2**64 - 1),
    ):
        if not least <= number <= most:
            raise ConfigError(f"{name} is {number}; give {least} to {most}")
    program, version, _ = find_espeak()
    training = [i for i, voice in enumerate(VOICES) if not voice.held_out][:train_voices]
    testing = [i for i, voice in enumerate(VOICES) if voice.held_out]
    target = Path(folder)
    info: dict[str, Any] = {
        "name": "Ranvier Digits",
        "data_version": DATA_VERSION,
        "licence": "CC-BY-4.0",
        "espeak_ng": version,
        "seed": seed,
        "channels": SHD_CHANNELS,
        "sample_rate": SHD_RATE,
        "classes": list(CLASSES),
        "voices": [
            {"speaker": i, **voice._asdict()} for i, voice in enumerate(VOICES) if i in training or i in testing
        ],
        "files": {},
    }
    for split, speakers, takes in (("train", training, train_takes), ("test", testing, test_takes)):
        jobs = _jobs(speakers, takes, seed, program)
        trains = convert(_load, jobs, workers=workers, progress=progress, title=f"Ranvier Digits, {split}")
        path = target / f"ranvier_digits_{split}.h5"
        written = write_trains(
            path,
            trains,
            labels=[job.label for job in jobs],
            speakers=[job.speaker for job in jobs],
            keys=CLASSES,
            meta={
                "meta_info/gender": [voice.gender for voice in VOICES],
                "meta_info/voice": [voice.variant for voice in VOICES],
                "meta_info/dialect": [voice.dialect for voice in VOICES],
                "take": [job.take for job in jobs],
                "data_version": DATA_VERSION,
                "espeak_ng": version,
                "licence": "CC-BY-4.0",
            },
        )
        info["files"][path.name] = {
            "samples": written.samples,
            "speakers": written.speakers,
            "takes": takes,
            "spikes": written.spikes,
            "bytes": path.stat().st_size,
            "sha256": digest(path, "sha256"),
        }
    with atomic_path(target / "ranvier_digits.json") as temporary:
        temporary.write_text(json.dumps(info, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return info


def _jobs(speakers: Iterable[int], takes: int, seed: int, program: str) -> list[_Job]:
    """All samples in an order shuffled by their keys, so that the first few hold many voices and words."""
    jobs = [
        _Job(speaker, label, take, seed, program)
        for speaker in speakers
        for label in range(20)
        for take in range(takes)
    ]
    return sorted(jobs, key=lambda job: hashlib.sha256(job.key.encode()).digest())
