"""Ranvier Digits:

spoken digits in English and German, tested on voices never heard in training. What `make demo` trains.
"""

from __future__ import annotations

from .config import Config
from .experiment import Experiment


def recipe(config: Config) -> Config:
    """Settings for words of unknown voices, chosen on training voices of Ranvier Digits held out from training.

    A word's own duration is divided into 15 steps, so tempo is gone before the network sees it, and counts are brought
    to square roots, so that a loud voice is not another input. Of the augmentations, mild ones along the channels
    (shift, stretch, bow, gain, mask: another vocal tract) help. Those along time do not, and those that only delete
    events (drop, fade) harm: voices louder than the training's then lie outside of all that was trained on.
    """
    data, augment, model, training = config.data, config.augment, config.model, config.training
    data.dt, data.window, data.relative, data.channel_factor, data.compress = 10.0, 150.0, True, 10, 2.0
    augment.channel_shift, augment.channel_warp, augment.channel_bend, augment.channel_mask = 5, 0.15, 0.05, 14
    augment.gain, augment.channel_tilt = 0.5, 0.5
    model.neuron, model.hidden, model.tau_mem, model.tau_adapt = "AdLIF", [512], [10.0, 60.0], [20.0, 150.0]
    model.surrogate_width, model.norm_gain, model.norm_bias, model.recurrent_gain = 0.4, 2.0, 1.5, 1.0
    model.dropout, model.input_dropout, model.recurrent_dropout = 0.1, 0.05, 0.1
    model.readout, model.tau_readout, model.learn_tau_readout, model.readout_bias = "mean", 20.0, False, True
    training.epochs, training.lr, training.weight_decay, training.logit_scale = 200, 5e-3, 1e-3, 3.0
    training.rate_weight, training.rate_low, training.rate_high = 5.0, 0.15, 0.5
    return config


def defaults() -> Config:
    """The demo's settings: all training voices, no validation, the weights of the last epoch."""
    config = recipe(Config(experiment="digits"))
    config.data.validation_speakers = 0
    return config


EXPERIMENT = Experiment(
    "digits", "20 spoken digits in English and German, held-out voices (packaged; what the demo trains)", defaults
)
