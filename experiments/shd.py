"""The Spiking Heidelberg Digits, after the published recipe of learned recurrent delays. [DelRec, 2025]

SHD has no validation set, and four of five of its test words are of speakers who are not in training. Weights are kept
by the loss on two training speakers held out; the published figures mostly keep the epoch that is best on the test.

What differs from the recipe: both hidden populations are recurrent with delays (there the second only); delays start
uniform up to 400 ms (there 100 to 300); the copies of every sample with shifted neurons are replaced by shifts of all
channels by up to 40 (Mészáros et al. 2025), drawn anew each epoch; the leak is given as a time constant.
"""

from __future__ import annotations

import math

from .config import Config
from .experiment import Experiment
from .published import run_published


def defaults() -> Config:
    """10 ms steps, 140 channels, two recurrent populations of 256 with axonal delays."""
    config = Config(experiment="shd")
    data, augment, model, training = config.data, config.augment, config.model, config.training
    data.source, data.dt, data.window, data.channel_factor, data.validation_speakers = "shd", 10.0, 1000.0, 5, 2
    augment.blend, augment.channel_shift = 0.5, 8
    model.neuron, model.hidden, model.learn_tau = "LIF", [256, 256], False
    model.tau_mem = [euler_tau(1.05, data.dt)] * 2
    model.reset, model.detach_reset, model.surrogate, model.surrogate_width = (
        "to_value",
        True,
        "atan",
        2 / (5 * math.pi),
    )
    model.dropout, model.recurrent_dropout, model.recurrent_gain = 0.4, 0.2, 1.0
    model.delay_recurrent, model.delay_max, model.delay_kernel, model.delay_width = "axonal", 400.0, "triangle", 100.0
    model.readout, model.tau_readout, model.learn_tau_readout, model.readout_bias = "sum_softmax", 20.0, False, True
    training.epochs, training.batch_size, training.lr, training.lr_delay = 150, 256, 5e-3, 10.0
    training.weight_decay, training.clip, training.label_smoothing, training.warmup = 1e-2, 0.0, 0.0, 0.3
    return config


def euler_tau(steps: float, dt: float) -> float:
    """The time constant in ms of exp(-dt / tau) that leaves what 1 - 1 / ``steps`` leaves after a step of ``dt``."""
    return round(-dt / math.log(1.0 - 1.0 / steps), 4)


EXPERIMENT = Experiment(
    "shd", "Spiking Heidelberg Digits with learned recurrent delays (files: docs/datasets.md)", defaults, run_published
)
