"""What every test shares: one thread per process, and the way to the real data that does not live in the repository."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

# Small tensors run slower on two threads than on one, and the order of a sum then depends on them.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)

# A loaded machine is no error; and what CI finds wrong, it has to find again.
settings.register_profile("ranvier", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "ranvier")

_ROOT = Path(__file__).resolve().parents[1]


def shared_root() -> Path:
    """The folder of real data: ``RANVIER_SHARED``, or ``shared`` beside the repository."""
    return Path(os.environ.get("RANVIER_SHARED", _ROOT.parent / "shared"))


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """``shared_data("fsdd/fsdd_spikes_train.h5")`` gives a path, or skips the test where that file does not exist."""

    def find(name: str) -> Path:
        path = shared_root() / "data" / name
        if not path.exists():
            pytest.skip(f"real data not found: {path} (set RANVIER_SHARED to the folder that holds data/)")
        return path

    return find
