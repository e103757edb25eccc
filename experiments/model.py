"""From a configuration to a network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError
from ..networks import Delay, Dense, Network
from ..neurons import ALIF, LIF, AdLIF, CuBaLIF, Integrator, Neuron
from ..neurons.surrogate import SURROGATES
from .config import SENSOR_SOURCES, Config, ModelConfig

INPUT, READOUT = "input", "readout"


def build_network(config: Config, channels: int, classes: int) -> Network:
    """The network of ``config.model`` for counts [T, B, ``channels``] and ``classes`` outputs [B, classes].

    Its nodes are ``input``, ``hidden`` (``hidden_2``, ... for further layers) and ``readout``. Everything random
    comes from ``training.seed``; torch's global generator is left as it was.

    Raises:
        ConfigError: for an unknown neuron or a value it refuses, or recurrent delays without recurrent connections.
    """
    m = config.model
    if m.delay_recurrent != "none" and not m.recurrent:
        raise ConfigError(
            f"model.delay_recurrent={m.delay_recurrent} needs a recurrent network; set model.recurrent=true"
        )
    net = Network(dt=config.data.dt, engine=config.training.engine)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.seed)
        source = net.input(channels, name=INPUT, kind=input_kind(config))
        for i, size in enumerate(m.hidden):
            layer = net.population(make_hidden(m, size), name="hidden" if i == 0 else f"hidden_{i + 1}")
            forward = Dense(
                bias=m.bias,
                batch_norm=m.batch_norm,
                dropout=m.input_dropout if i == 0 else m.dropout,
                init="normal",
                gain=m.input_gain,
                delay=make_delay(m, m.delay_input),
            )
            net.connect(source, layer, forward)
            if forward.norm is not None:
                torch.nn.init.constant_(forward.norm.weight, m.norm_gain)
                torch.nn.init.constant_(forward.norm.bias, m.norm_bias)
            if m.recurrent:
                back = Dense(
                    dropout=m.recurrent_dropout,
                    init=m.recurrent_init,
                    gain=m.recurrent_gain,
                    delay=make_delay(m, m.delay_recurrent),
                )
                net.connect(layer, layer, back)
            source = layer
        learn = ("tau_mem",) if m.learn_tau_readout else ()
        out = net.population(Integrator(classes, tau_mem=m.tau_readout, learn=learn, per_neuron=learn), name=READOUT)
        net.connect(source, out, Dense(bias=m.readout_bias, dropout=m.dropout, init="normal", gain=m.readout_gain))
        net.readout(out, m.readout)
    return net


def make_delay(m: ModelConfig, kind: str) -> Delay | None:
    """Delays of ``kind`` with the settings of ``m``, or None for ``none``."""
    if kind == "none":
        return None
    return Delay(max=m.delay_max, kind=kind, learn=m.delay_learn, kernel=m.delay_kernel, width=m.delay_width)


def input_kind(config: Config) -> str:
    """What a device will receive: see ``Network.input``."""
    if config.data.source in SENSOR_SOURCES:
        return "samples"
    return "events" if config.data.max_count == 1 else "counts"


def make_hidden(m: ModelConfig, size: int) -> Neuron:
    """``size`` neurons of the kind and parameters of ``m``."""
    learned = list[str]()
    values: dict[str, Any] = {"tau_mem": log_uniform(m.tau_mem, size), "threshold": m.threshold}
    if m.neuron == "CuBaLIF":
        values["tau_syn"] = log_uniform(m.tau_syn, size)
    if m.neuron in ("AdLIF", "ALIF"):
        values["tau_w" if m.neuron == "AdLIF" else "tau_adapt"] = log_uniform(m.tau_adapt, size)
    if m.neuron == "AdLIF":
        # a and b start spread over their ranges, as in the published SE-adLIF
        values |= {"a": torch.rand(size), "b": 2.0 * torch.rand(size)}
    if m.learn_tau:
        learned += [name for name in values if name.startswith("tau")]
    if m.learn_adaptation:
        learned += {"AdLIF": ["a", "b"], "ALIF": ["beta"]}.get(m.neuron, [])
    kinds: dict[str, type[Neuron]] = {"LIF": LIF, "CuBaLIF": CuBaLIF, "ALIF": ALIF, "AdLIF": AdLIF}
    if m.neuron not in kinds:
        raise ConfigError(f"model.neuron must be one of {', '.join(kinds)}, got {m.neuron!r}")
    return kinds[m.neuron](
        size,
        reset=None if m.reset == "own" else m.reset,
        detach_reset=m.detach_reset,
        refractory=m.refractory,
        surrogate=SURROGATES[m.surrogate](width=m.surrogate_width),
        learn=learned,
        per_neuron=learned,
        **values,
    )


def log_uniform(limits: Sequence[float], size: int) -> Tensor:
    """``size`` values between the two limits, uniform in their logarithm, from torch's global generator."""
    low, high = (math.log(v) for v in limits)
    return torch.exp(low + (high - low) * torch.rand(size))


def hidden_names(net: Network) -> list[str]:
    """The spiking populations, in order."""
    return [name for name in net.populations if net.neuron(name).program(net.dt).output_kind == "binary"]
