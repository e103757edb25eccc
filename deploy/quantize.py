"""From a trained network to an integer network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError, ExportError
from ..networks import Network
from .arrivals import IntConnection
from .calibration import Recording, make_formats, open_loop_error, record
from .folding import fold
from .inputs import RANGES, IntInput, Sensor, calibrated_ports
from .integer import IntegerNetwork, IntPopulation
from .lowering import Lowered, lower
from .program import bits_of

WIDTHS = (16, 20, 24, 28)
TOLERANCE = 0.01
"""Differing spikes per spike (or relative RMS of a real output) in open loop above which calibration widens states."""
INTEGER_READOUT = {"sum": "sum", "mean": "sum", "sum_softmax": "sum", "max": "max", "last": "last"}


def quantize(
    net: Network,
    calibration: Tensor | np.ndarray | Mapping[str, Tensor | np.ndarray],
    lengths: Tensor | np.ndarray | None = None,
    weight_bits: int = 8,
    state_bits: int = 16,
    sensors: Mapping[str, Sensor] | None = None,
) -> IntegerNetwork:
    """Give ``net`` its integer form: weights with a scale per target neuron, states and intermediate values in fixed
    point.

    Args:
        net: a network with a readout; it is evaluated, not changed.
        calibration: training samples [T, B, N_in] (or a mapping from input names) on which ranges and widths are
            chosen.
        lengths: [B], unpadded steps of each sample.
        weight_bits: 2 to 8.
        state_bits: width of states to start from; a population whose spikes then differ from float gets wider ones.
        sensors: for inputs of kind ``samples``, what the device's numbers stand for.

    Raises:
        ExportError: naming what has no integer form.
        ConfigError: for widths out of range.
    """
    if not 2 <= weight_bits <= 8 or not 4 <= state_bits <= 28:
        raise ConfigError(
            f"quantize: weight_bits must be 2 to 8 and state_bits 4 to 28, got {weight_bits} and {state_bits}"
        )
    check_exportable(net)
    inputs, x = calibrated_ports(net, calibration, sensors)
    training = net.training
    net.eval()
    try:
        with torch.no_grad():
            recordings = record(net, x, None if lengths is None else torch.as_tensor(lengths))
            populations = tuple(
                _population(net, inputs, name, recordings[name], weight_bits, state_bits)
                for stage in net.schedule()
                for name in stage.populations
            )
    finally:
        net.train(training)
    assert net.readout_of is not None
    notes = {"weight_bits": weight_bits, "state_bits": state_bits, "trained_readout": net.readout_of[1]}
    return IntegerNetwork(net.dt, inputs, populations, (net.readout_of[0], INTEGER_READOUT[net.readout_of[1]]), notes)


def check_exportable(net: Network) -> None:
    """Raise :class:`ExportError`, naming the part, for what has no integer form whatever the values."""
    if net.readout_of is None:
        raise ExportError("the network has no readout; name one with net.readout(population, 'sum')")
    if net.readout_of[1] not in INTEGER_READOUT:
        raise ExportError(f"readout {net.readout_of[1]!r} has no integer form; use one of {', '.join(INTEGER_READOUT)}")
    for name, data in net.graph.nodes(data=True):
        if data["kind"] == "input" and data["port"] not in RANGES:
            raise ExportError(f"input {name!r} receives {data['port']!r}; {', '.join(RANGES)} have an integer form")
    for a, _, key in net.graph.edges(keys=True):
        kind = getattr(net.connection(key), "kind", type(net.connection(key)).__name__)
        if kind not in ("dense", "per_channel", "copies"):
            raise ExportError(f"connection {key!r} is {kind!r}; only those that equal a dense one have an integer form")
        if a in net.populations and net.neuron(a).program(net.dt).output_kind == "real":
            raise ExportError(
                f"connection {key!r} carries the real output of {a!r}; only spikes can be a source in integers"
            )


@dataclass(frozen=True)
class _Weights:
    connections: tuple[IntConnection, ...]
    acc: tuple[int, int]
    scale: np.ndarray
    bias: np.ndarray


def _population(
    net: Network, inputs: Sequence[IntInput], name: str, recording: Recording, weight_bits: int, state_bits: int
) -> IntPopulation:
    neuron = net.neuron(name)
    model = str(getattr(neuron, "label", type(neuron).__name__))
    label = f"population {name!r} ({model})"
    weights = _weights(net, inputs, name, weight_bits, label)
    lowered = _choose_widths(recording, weights, state_bits, label)
    return IntPopulation(
        name, neuron.size, model, weights.connections, lowered.program, lowered.tables, lowered.initial
    )


def _weights(net: Network, inputs: Sequence[IntInput], name: str, weight_bits: int, label: str) -> _Weights:
    """Fold batch norm and bias, and quantise all connections into ``name`` with one scale per target neuron: they meet
    in one accumulator. A connection with several taps becomes one for each. Where samples arrive, whose weights per
    unit are far smaller than those of spikes, whole connections are brought to one magnitude by powers of two.
    """
    size = net.neuron(name).size
    folded, bias = fold(net, name, label)
    ports = {i.name: i for i in inputs}
    real = []
    for c in folded:
        port = ports.get(c.source)
        if port is not None and port.samples:
            if any(port.offsets) and (c.delay or c.delays):
                raise ExportError(
                    f"{label}: connection {c.name!r} delays the samples of {c.source!r}, whose sensor has an offset: "
                    "before the first step no number stands for silence. Take the offset out of the sensor's numbers "
                    "or the delay out of the connection"
                )
            real.append(c.weights * np.array(port.units) / port.factors)
        else:
            real.append(c.weights)
    shifts = _shifts(real) if any(ports[c.source].samples for c in folded if c.source in ports) else [0] * len(real)
    real = [w / 2.0**shift for w, shift in zip(real, shifts, strict=True)]
    top = (1 << (weight_bits - 1)) - 1
    peak = np.max([np.abs(w).max(axis=1) for w in real], axis=0) if folded else np.zeros(size)
    scale = np.where(peak > 0, peak, peak.max() or 1.0) / top
    low, high = np.zeros(size, np.int64), np.zeros(size, np.int64)
    connections, widest = [], 0
    for c, w, shift in zip(folded, real, shifts, strict=True):
        whole = np.clip(np.round(w / scale[:, None]), -top, top).astype(np.int8)
        port = ports.get(c.source)
        if port is not None and port.samples:
            # of the rounded weights, which an offset far from 0 would else tell from those that the numbers meet
            seen = whole * scale[:, None] * 2.0**shift * port.factors / np.array(port.units)
            bias = bias + seen @ np.array(port.offsets)
        signed = port is None and net.neuron(c.source).program(net.dt).output_kind == "signed"
        least, most = (-1, 1) if signed else RANGES["events" if port is None else port.port]
        ends = np.array([[least], [most]]) * (1 if port is None else port.factors) << shift
        products = whole.astype(np.int64)[None] * np.broadcast_to(ends, (2, whole.shape[1]))[:, None]
        widest = max(widest, int(np.abs(ends).max()))
        low += products.min(0).sum(1)
        high += products.max(0).sum(1)
        connections.append(IntConnection(c.name, c.source, c.delay, whole, c.delays, shift))
    acc = (int(low.min()), int(high.max()))
    if acc[0] < -(1 << 31) or max(acc[1], widest) >= 1 << 31:
        raise ExportError(
            f"{label}: its accumulator could reach {acc}, beyond 32 bits; it has too many sources, or samples in units "
            "too fine beside them"
        )
    return _Weights(tuple(connections), acc, scale, bias)


def _shifts(weights: Sequence[np.ndarray]) -> list[int]:
    """Powers of two by which whole connections are larger than the smallest."""
    peaks = [float(np.abs(w).max()) for w in weights]
    least = min((p for p in peaks if p > 0), default=1.0)
    return [round(math.log2(p / least)) if p > 0 else 0 for p in peaks]


def _choose_widths(recording: Recording, weights: _Weights, state_bits: int, label: str) -> Lowered:
    """The narrowest states that keep the population's spikes when it is driven by the currents of the float run."""
    states = recording.program.states
    values = {n: v.detach().cpu().numpy().astype(np.float64) for n, v in recording.values.items()}

    def attempt(widths: Mapping[str, int], param_bits: int) -> tuple[Lowered, float]:
        formats = make_formats(recording, widths, param_bits, label)
        typed = lower(recording.program, values, formats, weights.acc, weights.scale, weights.bias, label)
        # Weights are not on trial here: the same program with a finer accumulator takes the float currents.
        finer = max(0, 30 - bits_of(*weights.acc))
        acc, scale = (weights.acc[0] << finer, weights.acc[1] << finer), weights.scale / 2.0**finer
        trial = lower(recording.program, values, formats, acc, scale, weights.bias, label)
        return typed, _open_loop(recording, trial, acc, scale, weights.bias)

    ladder = [state_bits, *(w for w in WIDTHS if w > state_bits)]
    tried: list[tuple[float, int, Lowered]] = []
    for bits in ladder:
        lowered, error = attempt(dict.fromkeys(states, bits), max(bits, 16))
        tried.append((error, bits, lowered))
        if error <= TOLERANCE:
            break
    error, bits, best = min(tried, key=lambda t: (t[0] > TOLERANCE and t[0] > 1.1 * min(e for e, *_ in tried), t[1]))
    widths = dict.fromkeys(states, bits)
    for name in states if bits > state_bits else ():  # some states may not have needed it
        narrower = widths | {name: state_bits}
        lowered, again = attempt(narrower, max(bits, 16))
        if again <= max(error, TOLERANCE):
            widths, best = narrower, lowered
    return best


def _open_loop(
    recording: Recording, lowered: Lowered, limits: tuple[int, int], scale: np.ndarray, bias: np.ndarray
) -> float:
    """Error of the integer program driven with the float currents, rounded to the accumulator's unit."""
    program = lowered.program
    steps, batch, size = recording.current.shape
    acc = np.clip(np.round((recording.current.double().numpy() - bias) / scale), *limits).astype(np.int64)
    tables = {n: np.broadcast_to(t, (size,)) for n, t in lowered.tables.items()}
    state = {n: np.tile(np.broadcast_to(v, (size,)), (batch, 1)) for n, v in lowered.initial.items()}
    out = np.zeros((steps, batch, size))
    point = 2.0**-program.output_value.frac
    for k in range(steps):
        state, now = program.run(state, acc[k], tables)
        out[k] = now if program.spikes else now * point
    return open_loop_error(recording, out)
