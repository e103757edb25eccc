"""One file and one configuration per published experiment, and what trains, evaluates and reports them."""

from __future__ import annotations

from .config import Config, load_config, override, save_config
from .experiment import Experiment, train
from .model import build_network
from .registry import EXPERIMENTS, find_experiment

__all__ = [
    "EXPERIMENTS",
    "Config",
    "Experiment",
    "build_network",
    "find_experiment",
    "load_config",
    "override",
    "save_config",
    "train",
]
