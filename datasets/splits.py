"""Splits in which no speaker (or other subject) is on both sides. On SHD most test words are of speakers that training
never hears, so a random split of the training words says little about the test.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError


class Split(NamedTuple):
    """Two sets of sample numbers without a common speaker.

    Attributes:
        train, test: int64, ascending.
    """

    train: NDArray[np.int64]
    test: NDArray[np.int64]


def split_speakers(speakers: ArrayLike, test: Iterable[int], *, who: str = "speaker") -> Split:
    """All samples of the speakers ``test`` on one side, all others on the other.

    Args:
        speakers: int [samples].
        test: the speakers to hold out.
        who: what messages call one of them.

    Raises:
        DataError: a speaker has no sample, or a side is empty.
    """
    of = _speakers(speakers)
    held = sorted({int(s) for s in test})
    if missing := sorted(set(held) - set(of.tolist())):
        raise DataError(f"{who} {missing[0]} has no sample; the {who}s are {np.unique(of).tolist()}")
    mask = np.isin(of, held)
    if mask.all() or not mask.any():
        side = "training" if mask.all() else "test"
        raise DataError(f"holding out {who}s {held} leaves no {side} sample")
    return Split(np.flatnonzero(~mask), np.flatnonzero(mask))


def leave_one_speaker_out(speakers: ArrayLike) -> list[Split]:
    """One split per speaker, in ascending order, with that speaker's samples as the test.

    Raises:
        DataError: fewer than two speakers.
    """
    of = _speakers(speakers)
    found = np.unique(of)
    if len(found) < 2:
        raise DataError(f"leaving a speaker out needs at least two speakers; there is {found.tolist()}")
    return [split_speakers(of, [int(s)]) for s in found]


def hold_out(speakers: ArrayLike, number: int, seed: int) -> Split:
    """Hold out ``number`` speakers drawn by the seed, for validation: the same arguments give the same split.

    Raises:
        DataError: no speaker would be left to train on, or number is below 1.
    """
    found = np.unique(_speakers(speakers))
    if not 1 <= number < len(found):
        raise DataError(f"cannot hold out {number} of {len(found)} speakers; at least one must be on each side")
    return split_speakers(speakers, np.random.default_rng(seed).permutation(found)[:number].tolist())


def leave_groups_out(subjects: ArrayLike, folds: int, seed: int = 0) -> list[Split]:
    """``folds`` splits; each subject is in the test of exactly one.

    The subjects are shuffled by the seed and dealt, largest number of samples first, to the fold that has the fewest
    subjects, of equals the fewest samples: so the folds differ by at most one subject and by few samples.

    Args:
        subjects: int [samples].
        folds: 2 to the number of subjects.

    Raises:
        DataError: folds out of range.
    """
    of = _speakers(subjects)
    found, counts = np.unique(of, return_counts=True)
    if not 2 <= folds <= len(found):
        raise DataError(f"cannot make {folds} folds of {len(found)} subjects; give 2 to {len(found)}")
    order = np.random.default_rng(seed).permutation(len(found))
    order = order[np.argsort(-counts[order], kind="stable")]
    members: list[list[int]] = [[] for _ in range(folds)]
    samples = [0] * folds
    for i in order:
        fold = min(range(folds), key=lambda f: (len(members[f]), samples[f]))
        members[fold].append(int(found[i]))
        samples[fold] += int(counts[i])
    return [split_speakers(of, group, who="subject") for group in members]


def refuse_overlap(who: str = "speaker", /, **sets: ArrayLike) -> None:
    """Check that no speaker is in two of the named sets: ``refuse_overlap(train=a, test=b)``; messages call one
    ``who``.

    Raises:
        DataError: names the sets and the speakers they share.
    """
    seen: dict[int, str] = {}
    for name, values in sets.items():
        for speaker in np.unique(_speakers(values)).tolist():
            if speaker in seen:
                raise DataError(f"{who} {speaker} is in both {seen[speaker]} and {name}")
            seen[speaker] = name


@dataclass(frozen=True)
class Balance:
    """How samples are spread over the classes.

    Attributes:
        counts: {class name: samples}, every class in its order. missing: classes without a sample.
        ratio: samples of the largest class over those of the smallest that has any; 1 is balanced.
    """

    counts: dict[str, int]
    missing: tuple[str, ...]
    ratio: float


def balance(labels: ArrayLike, classes: tuple[str, ...]) -> Balance:
    """Count the samples of each class.

    Args:
        labels: int [samples]. classes: the names that labels index.
    """
    counts = np.bincount(np.asarray(labels, np.int64), minlength=len(classes))
    present = counts[counts > 0]
    return Balance(
        {name: int(n) for name, n in zip(classes, counts, strict=True)},
        tuple(name for name, n in zip(classes, counts, strict=True) if not n),
        float(present.max() / present.min()) if len(present) else 1.0,
    )


def _speakers(values: Any) -> NDArray[np.int64]:
    found = np.asarray(values)
    if found.ndim != 1 or (len(found) and found.dtype.kind not in "iu"):
        raise DataError(f"speakers must be one integer per sample, not {found.dtype} of shape {found.shape}")
    return found.astype(np.int64)
