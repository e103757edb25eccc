"""Operations, sparsity and footprint counted by NeuroBench itself, on a network stepped by hand through nn.Linear.

NeuroBench is not among the test requirements, since it pins packages of ours; its counts for this network are kept
here, and where it is installed (pip install neurobench) it counts again.
"""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ranvier.experiments.spike_costs import spike_costs
from ranvier.networks import Dense, Network
from ranvier.neurons import LIF, Integrator

STEPS, BATCH, INPUTS, HIDDEN, OUTPUTS = 12, 5, 6, 10, 3
SIZES = {"input_to_hidden": (HIDDEN, INPUTS), "hidden_to_hidden": (HIDDEN, HIDDEN), "hidden_to_out": (OUTPUTS, HIDDEN)}
#: By NeuroBench 2.3.0.
KNOWN = {
    "Effective_MACs": 127.2,
    "Effective_ACs": 619.4,
    "Dense": 2280.0,
    "activation_sparsity": 0.48,
    "connection_sparsity": 0.3421,
}


def weights() -> dict[str, Tensor]:
    """Multiples of 1/4, a third of them 0, so that every sum is exact on every machine."""
    rng = np.random.default_rng(0)
    made = {n: rng.integers(-4, 6, s) * (rng.random(s) > 0.33) / 4 for n, s in SIZES.items()}
    return {n: torch.from_numpy(w).float() for n, w in made.items()}


def samples() -> Tensor:
    """Events in the first half of the steps, real values in the second."""
    rng = np.random.default_rng(1)
    x = rng.integers(0, 2, (STEPS, BATCH, INPUTS)).astype(np.float32)
    x[STEPS // 2 :] *= rng.integers(1, 9, x[STEPS // 2 :].shape) / 4
    return torch.from_numpy(x)


def network() -> Network:
    net = Network(dt=1.0, engine="eager")
    hidden = LIF(HIDDEN, tau_mem=2.0, integrator="euler", threshold=1.0)  # Euler: the decay is 1/2
    x, h, y = net.input(INPUTS), net.population(hidden, "hidden"), net.population(Integrator(OUTPUTS), "out")
    for (a, b), name in zip(((x, h), (h, h), (h, y)), SIZES, strict=True):
        net.connect(a, b, Dense(weight=weights()[name]), name=name)
    net.readout(y, "sum")
    return net


def test_counts_are_those_that_neurobench_gave() -> None:
    found = spike_costs(network(), samples())
    assert found.effective_acs == pytest.approx(KNOWN["Effective_ACs"], rel=1e-9)
    assert found.effective_macs == pytest.approx(KNOWN["Effective_MACs"], rel=1e-9)
    assert found.dense == pytest.approx(KNOWN["Dense"], rel=1e-9)
    assert found.activation_sparsity == pytest.approx(KNOWN["activation_sparsity"], rel=1e-9)
    assert found.connection_sparsity == pytest.approx(KNOWN["connection_sparsity"], rel=1e-3)  # it rounds
    assert 0 < found.effective_macs < found.effective_acs < found.dense


class Spike(nn.Module):
    """What NeuroBench takes for the activation: its outputs are counted."""

    def forward(self, v: Tensor) -> Tensor:
        return (v > 1.0).float()


class Stepped(nn.Module):
    """The network written out step by step with nn.Linear, the only connections that NeuroBench sees."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict()
        for name, weight in weights().items():
            layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
            layer.weight.data = weight
            self.layers[name] = layer
        self.spike = Spike()
        self.sent: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        layers = [self.layers[name] for name in SIZES]
        v = s = torch.zeros(x.shape[1], HIDDEN)
        total = torch.zeros(x.shape[1], OUTPUTS)
        self.sent = []
        for now in x:
            v = v / 2 + layers[0](now) + layers[1](s)
            s = self.spike(v)
            v = v - s
            total = total + layers[2](s)
            self.sent.append(s)
        return total


@pytest.mark.skipif(find_spec("neurobench") is None, reason="neurobench is not installed (pip install neurobench)")
def test_neurobench_gives_these_counts() -> None:
    from neurobench.hooks.layer import LayerHook  # pyright: ignore[reportMissingImports]
    from neurobench.hooks.neuron import NeuronHook  # pyright: ignore[reportMissingImports]
    from neurobench.metrics.static import ConnectionSparsity, Footprint  # pyright: ignore[reportMissingImports]
    from neurobench.metrics.workload import (  # pyright: ignore[reportMissingImports]
        ActivationSparsity,
        SynapticOperations,
    )
    from neurobench.models import NeuroBenchModel  # pyright: ignore[reportMissingImports]

    class Model(NeuroBenchModel):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def __call__(self, batch: Tensor) -> Tensor:
            return self.net(batch)

        def __net__(self) -> nn.Module:
            return self.net

    stepped, x = Stepped(), samples()
    model = Model(stepped)
    model.connection_hooks = [LayerHook(layer) for layer in stepped.layers.values()]
    model.activation_hooks = [NeuronHook(stepped.spike)]
    given = model(x)
    ours = network().eval()(x, record=("hidden",))
    torch.testing.assert_close(ours.recorded["hidden"], torch.stack(stepped.sent), rtol=0, atol=0)
    counts = SynapticOperations()(model, given, (x.transpose(0, 1), None))
    found = {k: float(v) for k, v in counts.items()}
    found["activation_sparsity"] = float(ActivationSparsity()(model, given, (x, None)))
    found["connection_sparsity"] = float(ConnectionSparsity()(model))
    assert found == pytest.approx(KNOWN, rel=1e-6)
    footprint = Footprint()(model)
    assert footprint == sum(4 * w.numel() for w in weights().values())
