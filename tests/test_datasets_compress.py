"""Square roots of counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ranvier.datasets.compress import compressed
from ranvier.errors import ConfigError
from ranvier.experiments.config import Config, override
from ranvier.experiments.data import load_training

ALL = torch.arange(256, dtype=torch.uint8).reshape(4, 8, 8)


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0, 16.0])
def test_every_count_becomes_the_nearest_whole_number_to_its_scaled_root(scale: float) -> None:
    got = compressed(ALL, scale)
    assert got.dtype == torch.uint8 and got.shape == ALL.shape
    exact = np.minimum(scale * np.sqrt(np.arange(256)), 255)
    assert np.abs(got.numpy().ravel() - exact).max() <= 0.5
    assert (np.diff(got.numpy().ravel().astype(int)) >= 0).all()


def test_named_values_and_the_untouched_rest() -> None:
    assert compressed(torch.tensor([[[0, 1, 2, 3, 4, 25, 255]]], dtype=torch.uint8), 2.0)[0, 0].tolist() == [
        0, 2, 3, 3, 4, 10, 32,
    ]  # fmt: skip
    assert compressed(ALL, 0.0) is ALL


def test_noise_of_a_poisson_count_has_one_size() -> None:
    draws = torch.poisson(torch.tensor([10.0, 40.0, 160.0]).repeat(1, 4000, 1), torch.Generator().manual_seed(0))
    plain, root = draws.std(1)[0], compressed(draws.clamp(max=255).to(torch.uint8), 8.0).float().std(1)[0]
    assert plain[2] / plain[0] > 3.5
    assert root.numpy() == pytest.approx(4.0, rel=0.08)  # half the scale


def test_setting_applies_to_training_and_other_samples_before_saturation() -> None:
    config = override(Config(), ["data.compress=2", "data.equalise=0.5", "validation_speakers=2", "data.max_count=6"])
    other = override(Config(), ["data.equalise=0.5", "validation_speakers=2"])
    for split, plain in zip(load_training(config), load_training(other), strict=True):
        assert split is not None and plain is not None
        rows = np.arange(5)
        assert torch.equal(split.batch(rows).counts, compressed(plain.batch(rows).counts, 2.0).clamp(max=6))
    with pytest.raises(ConfigError, match="compress must be between 0 and 16"):
        override(Config(), ["data.compress=-1"])
