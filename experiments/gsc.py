"""Google Speech Commands, 35 words, after the published recipe of learned feed-forward delays. [Hammouamri,
Khalfaoui-Hassani, Masquelier 2024: 95.3 % at 2.5M with two delays a pair]

The input is log-mel levels and not the inner ear's spikes: published figures on this set are of mel spectra, the same
recordings through the inner ear are SSC, and a microcontroller can make a mel spectrum. Weights are kept by the loss on
the published validation list.

What differs from the recipe: 40 bands of the recordings at 16 kHz (there 140 at 8 kHz), levels in whole decibels, and
one delay a pair.
"""

from __future__ import annotations

import math

from .config import Config
from .experiment import Experiment
from .published import run_published
from .shd import euler_tau


def defaults() -> Config:
    """10 ms steps, 40 bands, three feed-forward populations of 512 with a delay for each pair."""
    config = Config(experiment="gsc")
    data, model, training = config.data, config.model, config.training
    data.source, data.dt, data.window, data.channels, data.channel_factor = "gsc", 10.0, 1000.0, 40, 1
    model.neuron, model.hidden, model.learn_tau, model.recurrent = "LIF", [512, 512, 512], False, False
    model.tau_mem = [euler_tau(1.5, data.dt)] * 2
    model.reset, model.detach_reset, model.surrogate, model.surrogate_width = (
        "to_value",
        True,
        "atan",
        2 / (5 * math.pi),
    )
    model.dropout = 0.25
    model.delay_input, model.delay_max, model.delay_kernel, model.delay_width = "synaptic", 300.0, "gaussian", 150.0
    model.readout, model.tau_readout, model.learn_tau_readout = "sum_softmax", model.tau_mem[0], False
    training.epochs, training.batch_size, training.lr, training.lr_delay = 100, 128, 5e-3, 20.0
    training.weight_decay, training.clip, training.label_smoothing, training.warmup = 1e-5, 0.0, 0.0, 0.3
    return config


EXPERIMENT = Experiment(
    "gsc", "Google Speech Commands with learned delays of each pair (files: docs/datasets.md)", defaults, run_published
)
