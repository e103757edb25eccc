"""The Legendre memory unit made of spiking neurons: a function from a network to the same network with the block in it.

There is no cell: the block is populations and connections like any others, so that the schedule, the engines, files and
exporters know nothing of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from typing import Any, cast

import torch
from torch import Tensor

from ..errors import ConfigError
from ..neurons import LIF, CuBaLIF, Neuron, SigmaDelta, Surrogate, staggered
from .dense import Dense
from .memory import check_memory, legendre_matrices
from .network import Network, Node
from .per_channel import Copies, PerChannel

PARTS = ("memory_input", "memory", "hidden", "output")
MEMORIES = ("sigma_delta", "spiking")
COPIES = 8
"""Neurons for each value of a sigma-delta memory, unless told."""

MakeNeuron = Callable[[int], Neuron]

PUBLISHED: dict[str, dict[str, Any]] = {
    "braille_27": {
        "order": 4, "theta": 7.0, "hidden": 160, "channels": 250, "outputs": 27,
        "beta": {"memory_input": 0.65, "hidden": 0.15, "memory": 0.35, "output": 0.15},
        "threshold": {"memory_input": 0.1, "hidden": 0.75, "memory": 0.4, "output": 0.1},
    },
    "braille_7": {
        "order": 7, "theta": 10.0, "hidden": 120, "channels": 70, "outputs": 7,
        "beta": {"memory_input": 0.8, "hidden": 0.45, "memory": 0.2, "output": 0.6},
        "threshold": {"memory_input": 0.2, "hidden": 0.65, "memory": 0.4, "output": 0.15},
    },
}  # fmt: skip
"""The hyper-parameters published with L2MU-Braille (NICE 2025), in steps; :func:`published_l2mu` gives them in ms."""


def published_l2mu(name: str, dt: float = 1.0) -> dict[str, Any]:
    """The arguments of :class:`L2MU` that rebuild a published network, ``braille_27`` or ``braille_7``, for steps of
    ``dt`` ms: plain spikes, A transposed as its code applies it, and snnTorch's reset one step later.

    Raises:
        ConfigError: for an unknown name.
    """
    if name not in PUBLISHED:
        raise ConfigError(f"there is no published L2MU {name!r}; there are {', '.join(PUBLISHED)}")
    found = dict(PUBLISHED[name])
    tau = {part: -dt / math.log(beta) for part, beta in found.pop("beta").items()}
    return {
        **found,
        "theta": found["theta"] * dt,
        "tau_mem": tau,
        "memory": "spiking",
        "transpose": True,
        "reset_delayed": True,
    }


class L2MU:
    """Adds a Legendre memory unit of spiking neurons to ``net``, driven by ``source``; holds the nodes it made.

    In step k: memory input u from x[k], h[k-1] and m[k-1]; memory m as (channels, order) from A m[k-1] + B u[k] in
    every channel; hidden h from x[k], h[k-1] and m[k]; output o from h[k]. x, u, m, h, o are spikes. [Fra, Leto,
    Pignata, Macii, Urgese 2024, "Natively neuromorphic LMU architecture"]

    Args:
        net: the network; ``net.dt`` is the step.
        source: the input or population that the block reads.
        channels: independent memories.
        order: coefficients of each.
        theta: what each remembers, in ms.
        hidden: neurons of h.
        outputs: neurons of o; None adds no output population.
        memory: ``sigma_delta``, the memory that remembers: u and m are signed sigma-delta neurons, ``copies`` of each
            value start evenly spaced, and A and B are scaled to the values' range. Or ``spiking``, as published: every
            coefficient is one neuron of the kind ``neuron``, and mostly forgets (docs/l2mu.md).
        copies: neurons for each value of u and m; 8 by default, and 1 with ``spiking``.
        correlation: correlation time in ms of what u is expected to carry, for the scale of A and B; by default
            theta / order. Shorter for noisier inputs.
        feedback: whether h and m feed u, as published; without, u is E_x x alone, and the memory a loop by itself.
        neuron: ``lif``, ``cubalif`` or a function from a size to a neuron. This, ``tau_mem``, ``tau_syn`` and
            ``threshold`` are for all populations or a mapping from memory_input, memory, hidden and output; u and m of
            ``sigma_delta`` take none of them.
        tau_mem, tau_syn: ms.
        threshold: of the spikes.
        learn: names of the neurons' parameters to learn, per population.
        method, transpose: of A and B, as :func:`legendre_matrices`. The published code applies A transposed, which is
            no memory of a window; the default is the mathematically right one.
        learn_memory: whether A and B are learned; one copy only.
        surrogate, reset_delayed, detach_reset: of the LIF and CuBaLIF populations.
        name: the populations are called NAME_u, NAME_m, NAME_h and NAME_o.

    Attributes:
        memory_input, memory, hidden, output: the nodes; ``output`` is None without one.

    Raises:
        ConfigError: for an order or size below 1, a theta not above 0, an unknown choice, a memory that is unstable.
        GraphError: for a source that is no node of the network, or a name that is taken.
    """

    def __init__(
        self,
        net: Network,
        source: Node | str,
        *,
        channels: int,
        order: int,
        theta: float,
        hidden: int,
        outputs: int | None = None,
        memory: str = "sigma_delta",
        copies: int | None = None,
        correlation: float | None = None,
        feedback: bool = True,
        neuron: str | MakeNeuron | Mapping[str, str | MakeNeuron] = "lif",
        tau_mem: float | Mapping[str, float] = 10.0,
        tau_syn: float | Mapping[str, float] = 5.0,
        threshold: float | Mapping[str, float] = 1.0,
        learn: Iterable[str] = (),
        method: str = "zoh",
        transpose: bool = False,
        learn_memory: bool = False,
        surrogate: Surrogate | None = None,
        reset_delayed: bool = False,
        detach_reset: bool = False,
        name: str = "l2mu",
    ) -> None:
        check_memory(order, theta, "L2MU")
        if memory not in MEMORIES:
            raise ConfigError(f"L2MU: memory must be one of {', '.join(MEMORIES)}, got {memory!r}")
        several = memory == "sigma_delta"
        copies = (COPIES if several else 1) if copies is None else copies
        sizes = {"channels": channels, "hidden": hidden, "copies": copies, "outputs": 1 if outputs is None else outputs}
        for what, size in sizes.items():
            if not isinstance(size, Integral) or isinstance(size, bool) or size < 1:
                raise ConfigError(f"L2MU: {what} must be a whole number, 1 or more, got {size!r}")
        if copies > 1 and not several:
            raise ConfigError(
                "L2MU: copies of a value are for memory='sigma_delta'; plain spikes of equal neurons agree"
            )
        given = {"neuron": neuron, "tau_mem": tau_mem, "tau_syn": tau_syn, "threshold": threshold}
        chosen = {what: _per_part(value, what) for what, value in given.items()}
        options = {"surrogate": surrogate, "reset_delayed": reset_delayed, "detach_reset": detach_reset}

        def make(part: str, size: int) -> Neuron:
            own = {what: values[part] for what, values in chosen.items()}
            return _neuron(own, size, list(learn), options, part)

        x, states = net._node(source).size, channels * order
        # what may be refused is made before anything is added
        h_neuron, o_neuron = make("hidden", hidden), None if outputs is None else make("output", outputs)
        if several:
            u, m = sigma_delta_memory(
                net, channels, order, theta, copies, method, transpose, learn_memory, name, correlation
            )
        else:
            u = net.population(make("memory_input", channels), name=f"{name}_u")
            m = net.population(make("memory", states), name=f"{name}_m")
            a, b = memory_matrices(order, theta, net.dt, method, transpose, scaled=False)
            net.connect(m, m, PerChannel(a, learn=learn_memory))
            net.connect(u, m, PerChannel(b, learn=learn_memory))
        h = net.population(h_neuron, name=f"{name}_h")
        o = None if o_neuron is None else net.population(o_neuron, name=f"{name}_o")

        net.connect(source, u, _among(_lecun(channels, x), copies, 1))
        if feedback:
            net.connect(h, u, _among(_lecun(channels, hidden), copies, 1))
            net.connect(m, u, _among(torch.zeros(channels, states), copies, copies))
        net.connect(source, h, Dense(weight=_xavier(hidden, x)))
        net.connect(h, h, Dense(weight=_xavier(hidden, hidden)))
        net.connect(m, h, _among(_xavier(hidden, states), 1, copies))
        if o is not None and outputs is not None:
            net.connect(h, o, Dense(weight=_xavier(outputs, hidden), bias=True))
        self.memory_input, self.memory, self.hidden, self.output = u, m, h, o


def sigma_delta_memory(
    net: Network,
    channels: int,
    order: int,
    theta: float,
    copies: int = COPIES,
    method: str = "zoh",
    transpose: bool = False,
    learn: bool = False,
    name: str = "memory",
    correlation: float | None = None,
) -> tuple[Node, Node]:
    """Add the spiking memory that remembers, alone: its input population, ``channels`` values, and the memory,
    (channels, order) values, every value the mean of ``copies`` signed neurons. Returns both; connect to the first with
    :class:`Copies`.

    Arguments as :class:`L2MU`.

    Raises:
        ConfigError: for an order below 1, a theta not above 0, an unstable memory, several copies to be learned.
    """
    if copies > 1 and learn:
        raise ConfigError("L2MU: learn_memory needs copies=1: with more, the copies of a value would come apart")
    a, b = memory_matrices(order, theta, net.dt, method, transpose, correlation=correlation)

    def add(values: int, label: str) -> Node:
        return net.population(SigmaDelta(values * copies, v_start=staggered(copies).repeat(values)), name=label)

    u, m = add(channels, f"{name}_u"), add(channels * order, f"{name}_m")
    for source, matrix in ((m, a), (u, b)):
        whole = Copies(torch.block_diag(*[matrix] * channels), copies, copies, learn=False)
        net.connect(source, m, whole if copies > 1 else PerChannel(matrix, learn=learn))
    return u, m


def memory_matrices(
    order: int,
    theta: float,
    dt: float = 1.0,
    method: str = "zoh",
    transpose: bool = False,
    scaled: bool = True,
    correlation: float | None = None,
) -> tuple[Tensor, Tensor]:
    """A and B as :func:`legendre_matrices`; ``scaled`` so that every coefficient stays mostly within -1 to 1.

    Its scale is twice its standard deviation while the input is noise of unit variance with a ``correlation`` time, in
    ms, by default theta / order, about the fastest that the memory can hold. So no row ever falls silent and none
    saturates, whatever theta is. Noisier inputs are averaged away more: give them the shorter time that they have.

    Raises:
        ConfigError: for an unstable memory (Euler with a short window), a correlation not above 0, beside what that
            raises.
    """
    if correlation is not None and not (isinstance(correlation, Real) and 0 < correlation < math.inf):
        raise ConfigError(f"correlation must be a finite time in ms above 0, got {correlation!r}")
    a, b = legendre_matrices(order, theta, dt, method, transpose)
    radius = float(torch.linalg.eigvals(a).abs().max())
    if radius >= 1:
        raise ConfigError(
            f"the memory of order {order} and theta {theta:g} ms is unstable with method {method!r} at steps of {dt:g} "
            f"ms (spectral radius {radius:.3g}); use 'zoh', or a theta of more than {4 * order * dt:g} ms"
        )
    if not scaled:
        return a, b
    # the joint covariance P = F P F' + G G' of the coefficients and an autoregressive input of unit variance
    keep = math.exp(-dt / (theta / order if correlation is None else correlation))
    f, g = torch.zeros(order + 1, order + 1, dtype=a.dtype), torch.ones(order + 1, 1, dtype=a.dtype)
    f[:order, :order], f[:order, order:], f[order, order], g[:order] = a, keep * b, keep, b
    right = (1 - keep**2) * (g @ g.T).reshape(-1, 1)
    p = torch.linalg.solve(torch.eye((order + 1) ** 2, dtype=a.dtype) - torch.kron(f, f), right)
    scale = 2 * p.reshape(order + 1, order + 1).diagonal()[:order].sqrt()
    return a / scale.unsqueeze(1) * scale, b / scale.unsqueeze(1)


def sensor_input(
    net: Network,
    source: Node | str,
    per_axis: int = 8,
    stacked: tuple[int, int] | None = None,
    neuron: str | MakeNeuron = "lif",
    tau_mem: float = 10.0,
    tau_syn: float = 5.0,
    threshold: float = 1.0,
    learn: Iterable[str] = ("tau_mem", "threshold"),
    surrogate: Surrogate | None = None,
    reset_delayed: bool = False,
    detach_reset: bool = False,
    name: str = "sensor",
) -> Node:
    """The encoding-free input of real sensor values: ``per_axis`` spiking neurons for each axis of ``source``, each
    with a weight and a bias of its own; returns the last population.

    ``stacked`` = (encoder, decoder) adds two populations more of these sizes, so that there are three layers. The
    parameters ``learn`` of all are per neuron. [Fra et al. 2024, "single" and "stacked"]

    Raises:
        ConfigError: for sizes below 1 and what the neurons refuse.
    """
    axes = net._node(source).size
    layers = [axes * per_axis, *(stacked or ())] if isinstance(per_axis, Integral) else [0]
    if min(layers) < 1 or len(layers) not in (1, 3):
        raise ConfigError(f"sensor_input: per_axis and stacked must be sizes of 1 or more, got {per_axis}, {stacked}")
    own = {"neuron": neuron, "tau_mem": tau_mem, "tau_syn": tau_syn, "threshold": threshold}
    options = {"surrogate": surrogate, "reset_delayed": reset_delayed, "detach_reset": detach_reset}
    node = source
    for i, size in enumerate(layers):
        label = name if i == 0 else f"{name}_{i + 1}"
        population = net.population(_neuron(own, size, list(learn), options, "input", spread=True), name=label)
        # as torch's linear layer of one input: uniform within -1 to 1
        first = PerChannel(torch.rand(axes, per_axis, 1) * 2 - 1, learn=True, bias=True) if i == 0 else None
        net.connect(node, population, first or Dense(bias=True))
        node = population
    return node  # type: ignore[return-value]


def _per_part(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return dict.fromkeys(PARTS, value)
    unknown = set(value) - set(PARTS)
    if unknown:
        raise ConfigError(f"L2MU: {what} is for {', '.join(PARTS)}; got {', '.join(map(repr, unknown))}")
    return {part: value.get(part) for part in PARTS}


def _neuron(
    own: Mapping[str, Any], size: int, learn: list[str], options: dict[str, Any], part: str, spread: bool = False
) -> Neuron:
    kind = own["neuron"]
    if kind not in ("lif", "cubalif") and not callable(kind):
        raise ConfigError(f"L2MU: the neuron of {part} must be 'lif', 'cubalif' or a function, got {kind!r}")
    if not isinstance(kind, str):
        return cast(MakeNeuron, kind)(size)
    named = ("tau_mem", "threshold") if kind == "lif" else ("tau_mem", "threshold", "tau_syn")
    for what in named:
        if not isinstance(own[what], Real):
            raise ConfigError(f"L2MU: {what} of {part} must be a number, got {own[what]!r}")
    model = LIF if kind == "lif" else CuBaLIF
    values = {what: own[what] for what in named}
    learned = [what for what in learn if what in named]
    return model(size, learn=learned, per_neuron=learned if spread else (), **options, **values)


def _among(matrix: Tensor, targets: int, sources: int) -> Dense:
    return Dense(weight=matrix) if targets == sources == 1 else Copies(matrix, targets, sources)


def _lecun(rows: int, columns: int) -> Tensor:
    return (torch.rand(rows, columns) * 2 - 1) * math.sqrt(3 / columns)


def _xavier(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns) * math.sqrt(2 / (rows + columns))
