from __future__ import annotations

from copy import deepcopy

from ..neurons import SmoothTwin
from .network import Network


def smooth_twin(net: Network) -> Network:
    """A copy of ``net`` of neurons that send the antiderivative of their surrogate instead of spikes, with nothing
    detached.

    What it computes is smooth, and the gradients by which ``net`` is trained are its true ones. So they can be checked
    against finite differences, as our tests do, with any network and engine.

    Raises:
        TraceError: for a neuron whose surrogate's antiderivative has no step-program form (ATan, Gaussian).
    """
    twin = deepcopy(net)
    for name in net.populations:
        twin.populations[name] = SmoothTwin(twin.neuron(name))
        twin.neuron(name).program(net.dt)
    return twin
