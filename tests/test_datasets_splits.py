"""Splits without a common speaker, and the kernel ridge that every network has to beat."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranvier.datasets import (
    Joined,
    SpikeFile,
    hold_out,
    leave_one_speaker_out,
    refuse_overlap,
    ridge_accuracy,
    ridge_folds,
    split_speakers,
    write_shd,
)
from ranvier.datasets.ridge import predict
from ranvier.datasets.splits import balance
from ranvier.errors import DataError


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANVIER_CACHE", str(tmp_path / "cache"))


speakers = st.lists(st.integers(0, 6), min_size=2, max_size=60).filter(lambda s: len(set(s)) > 1)


@given(speakers, st.integers(0, 1000), st.data())
def test_every_split_divides_the_speakers(of: list[int], seed: int, data: st.DataObject) -> None:
    number = data.draw(st.integers(1, len(set(of)) - 1))
    held = hold_out(of, number, seed)
    for train, test in [*leave_one_speaker_out(of), held]:
        assert sorted([*train, *test]) == list(range(len(of)))
        mine, theirs = {of[i] for i in train}, {of[i] for i in test}
        assert not mine & theirs
        refuse_overlap(train=np.array(of)[train], test=np.array(of)[test])
    assert len({of[i] for i in held.test}) == number
    again = hold_out(of, number, seed)
    assert np.array_equal(held.train, again.train)
    folds = leave_one_speaker_out(of)
    assert [{of[i] for i in f.test} for f in folds] == [{s} for s in sorted(set(of))]


def test_the_seed_chooses_the_speakers() -> None:
    of = np.arange(40) % 10
    assert len({tuple(of[hold_out(of, 3, seed).test]) for seed in range(20)}) > 10


def test_what_is_refused() -> None:
    with pytest.raises(DataError, match="speaker 3 is in both train and valid"):
        refuse_overlap(train=[1, 3], test=[0], valid=[5, 3])
    with pytest.raises(DataError, match="speaker 9 has no sample"):
        split_speakers([0, 1, 2], [9])
    with pytest.raises(DataError, match="leaves no training sample"):
        split_speakers([0, 1], [0, 1])
    with pytest.raises(DataError, match="leaves no test sample"):
        split_speakers([0, 1], [])
    with pytest.raises(DataError, match="at least two"):
        leave_one_speaker_out([4, 4])
    for number in (0, 2):
        with pytest.raises(DataError, match="hold out"):
            hold_out([0, 1], number, 0)
    with pytest.raises(DataError, match="one integer per sample"):
        hold_out([0.5, 1.5], 1, 0)


def test_balance_counts_every_class() -> None:
    found = balance([0, 0, 2, 0], ("a", "b", "c"))
    assert found.counts == {"a": 3, "b": 0, "c": 1}
    assert found.missing == ("b",)
    assert found.ratio == 3
    assert balance([], ("a",)).ratio == 1


def test_ridge_is_the_closed_form() -> None:
    rng = np.random.default_rng(0)
    x, y, z = rng.normal(size=(40, 6)), rng.integers(0, 4, 40), rng.normal(size=(15, 6))
    scaled, mean, deviation = (x - x.mean(0)) / x.std(0), x.mean(0), x.std(0)
    other = (z - mean) / deviation

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.array([[np.exp(-0.5 / 6 * ((p - q) ** 2).sum()) for q in b] for p in a])

    weights = np.linalg.inv(kernel(scaled, scaled) + 0.1 * np.eye(40)) @ np.eye(4)[y]
    assert np.array_equal(predict(x, y, z), (kernel(other, scaled) @ weights).argmax(1))
    assert (predict(x, y, x) == y).mean() > 0.9
    assert len(predict(np.c_[x, np.ones(40)], y, np.c_[z, np.ones(15)])) == 15  # a feature that never changes


def test_ridge_on_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    times = [np.sort(rng.random(80)) for _ in range(30)]
    units = [np.clip(rng.normal(150 + 200 * (i % 3), 40, 80), 0, 699).astype(int) for i in range(30)]
    arguments = (np.arange(30) % 3, np.arange(30) // 10)
    a = SpikeFile(write_shd(tmp_path / "a.h5", times, units, *arguments, ["a", "b", "c"]))
    other = SpikeFile(write_shd(tmp_path / "b.h5", times, units, *arguments, ["a", "b", "d"]))
    assert ridge_folds(a) == {0: 1.0, 1: 1.0, 2: 1.0}
    assert ridge_accuracy(a, a) == 1.0
    with pytest.raises(DataError, match="different classes"):
        ridge_accuracy(a, other)
    empty = SpikeFile(write_shd(tmp_path / "e.h5", [], [], np.zeros(0, int), np.zeros(0, int), ["a", "b", "c"]))
    with pytest.raises(DataError, match="nothing to compare"):
        ridge_accuracy(a, empty)


def test_ridge_on_real_words_is_the_known_number(shared_data: Callable[[str], Path]) -> None:
    files = [SpikeFile(shared_data(f"fsdd/fsdd_spikes_{part}.h5")) for part in ("train", "test")]
    found = ridge_folds(Joined(*files))
    names = [n.decode() for n in files[0].extra("speaker_names")]
    known = {"george": 0.56, "jackson": 0.52, "nicolas": 0.46, "yweweler": 0.51}  # measured by others, two digits
    for speaker, value in found.items():
        assert value == pytest.approx(known[names[speaker]], abs=0.0075), names[speaker]
    assert np.mean(list(found.values())) == pytest.approx(0.51, abs=0.005)
