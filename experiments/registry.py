"""The experiments by name."""

from __future__ import annotations

import difflib

from ..errors import ConfigError
from . import (
    compress,
    digits,
    digits_delays,
    exercises,
    fsdd,
    gsc,
    har,
    l2mu_memory,
    motifs,
    permuted_digits,
    psmnist,
    shd,
    ssc,
    timing,
)
from .experiment import Experiment

EXPERIMENTS: dict[str, Experiment] = {
    e.name: e
    for e in (
        compress.EXPERIMENT,
        digits.EXPERIMENT,
        digits_delays.EXPERIMENT,
        exercises.EXPERIMENT,
        fsdd.EXPERIMENT,
        gsc.EXPERIMENT,
        har.EXPERIMENT,
        l2mu_memory.EXPERIMENT,
        motifs.EXPERIMENT,
        permuted_digits.EXPERIMENT,
        psmnist.EXPERIMENT,
        shd.EXPERIMENT,
        ssc.EXPERIMENT,
        timing.EXPERIMENT,
    )
}


def find_experiment(name: str) -> Experiment:
    """An experiment by its name; raises :class:`ConfigError`, naming the nearest, for an unknown one."""
    if name not in EXPERIMENTS:
        close = difflib.get_close_matches(name, EXPERIMENTS, 1, 0.4)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(EXPERIMENTS)}"
        raise ConfigError(f"there is no experiment {name!r}; {hint}")
    return EXPERIMENTS[name]
