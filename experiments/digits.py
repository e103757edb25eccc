"""Ranvier Digits:

spoken digits in English and German, tested on voices never heard in training. What `make demo` trains.
"""

from __future__ import annotations

from .config import Config
from .experiment import Experiment


def defaults() -> Config:
    """The demo's settings: one recurrent layer of AdLIF neurons on 10 ms counts of 140 channels."""
    config = Config(experiment="digits")
    config.data.validation_speakers = 4
    return config


EXPERIMENT = Experiment(
    "digits", "20 spoken digits in English and German, held-out voices (packaged; what the demo trains)", defaults
)
