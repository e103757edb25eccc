"""``ranvier train exercises``: which of seven shoulder exercises a watch saw, by people who were not trained on.

seglearn's recordings, in windows of 8 s, since a repetition takes several, and all as on the right arm: turning the
arm inwards on one side is turning it outwards on the other. Everything else is as in ``ranvier train har``: each fold
chooses, on three of its own training people, among the candidates below.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from . import har
from .config import Config
from .experiment import Experiment
from .selection import Candidate

WORN = ("rotation=20", "sensor_gain=0.2", "sensor_noise=0.2", "time_stretch=0.2")
MORE = ("rotation=30", "sensor_gain=0.3", "sensor_noise=0.3", "time_stretch=0.3", "dropout=0.4")

#: What each fold chooses among; of equals the first.
CANDIDATES = (
    Candidate("worn otherwise", "another wearing of the watch, other paces", WORN),
    Candidate("more", "the same, stronger", MORE),
)


def defaults() -> Config:
    """seglearn, windows of 8 s at 20 Hz."""
    config = har.defaults()
    config.experiment = "exercises"
    config.data.source, config.data.window, config.data.stride = "seglearn", 8000.0, 2000.0
    config.data.one_arm = True
    config.augment.time_later = config.augment.time_earlier = 1000.0
    config.model.theta, config.model.dropout = 2000.0, 0.3
    config.training.batch_size = 64
    return config


def _run(config: Config, folder: Path, console: Console, overwrite: bool) -> None:
    found = har.sweep(config, folder, console, overwrite, candidates=CANDIDATES, models=("l2mu",))
    har.show(found, folder, console)


EXPERIMENT = Experiment(
    "exercises", "shoulder exercises from a watch, people held out: L2MU beside ridge", defaults, _run
)
