"""Weights of few bits and with gaps in C: packed, mapped or listed, and still the same bits."""

from __future__ import annotations

from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import pytest
import torch

from ranvier.deploy import CTarget, IntegerNetwork, footprint, quantize, verify, without_unread
from ranvier.deploy.c_weights import KINDS, stored, stored_bytes
from ranvier.networks import Copies, Delay, Dense, Network, activity_masks, compress, magnitude_masks
from ranvier.neurons import LIF, AdLIF, Integrator, SigmaDelta

needs_c = pytest.mark.skipif(not (which("cc") or which("gcc")), reason="needs a C compiler")


def network(delays: bool = False, hidden: int = 37, port: str = "counts") -> Network:
    torch.manual_seed(1)
    net = Network(dt=1.0)
    x, h = net.input(9, name="x", kind=port), net.population(AdLIF(hidden, tau_mem=4.0, threshold=0.3), name="h")
    m, y = net.population(LIF(21), name="m"), net.population(Integrator(5, tau_mem=10.0), name="y")
    own: dict[str, Any] = {"delay": Delay(max=5.0, kind="synaptic")} if delays else {}
    back: dict[str, Any] = {"delay": (Delay(max=3.0, min=1.0), Delay(max=3.0, kind="dendritic"))} if delays else {}
    net.connect(x, h, Dense(gain=3.0, batch_norm=True, **own))
    net.connect(h, h, Dense(gain=0.7, **back))
    net.connect(h, m, Dense(gain=3.0))
    net.connect(m, y, Dense(bias=True))
    net.readout(y, "sum")
    return net.eval()


def spikes(seed: int, steps: int = 25, batch: int = 6) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return ((rng.random((steps, batch, 9)) < 0.3) * rng.integers(1, 4, (steps, batch, 9))).astype(np.uint8)


def compressed(bits: int, share: float, **options: Any) -> IntegerNetwork:
    net = network(**options)
    compress(net, bits, magnitude_masks(net, share) if share else None)
    return quantize(net, spikes(0), weight_bits=bits)


@needs_c
@pytest.mark.parametrize("delays", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("bits", [8, 4])
def test_every_form_runs_the_same_bits(bits: int, share: float, delays: bool, tmp_path: Path) -> None:
    inet = compressed(bits, share, delays=delays)
    CTarget().export(inet, tmp_path, "net")
    found = verify(CTarget(), inet, tmp_path, "net", spikes(3))
    counts = (found.differing_spikes, found.differing_readouts, found.differing_states, found.differing_classes)
    assert counts == (0, 0, 0, 0) and found.firing["h"] > 0.001, found
    source = (tmp_path / "net.c").read_text()
    assert ("nibble" in source) == (bits == 4)
    assert ("map_" in source) >= (share == 0.5) and ("first_" in source) >= (share > 0)
    assert bits == 4 or ("first_" in source) == (share > 0)


def test_the_smallest_form_is_taken_and_holds_every_weight() -> None:
    rng = np.random.default_rng(0)
    chosen = set()
    for targets, sources, top, share in [
        (20, 30, 127, 0.0), (21, 30, 7, 0.0), (64, 40, 127, 0.6), (64, 40, 7, 0.6), (300, 40, 127, 0.97),
        (64, 40, 7, 0.97), (5, 3, 7, 1.0), (1, 1, 127, 0.0),
    ]:  # fmt: skip
        weights = rng.integers(-top, top + 1, (targets, sources)).astype(np.int8)
        weights[rng.random(weights.shape) < share] = 0
        if share == 0:
            weights[weights == 0] = 1
        form = stored("c", "c", weights)
        assert form.packed == (top == 7)
        assert form.bytes == min(stored_bytes(form.weights, kind, form.packed) for kind in KINDS)
        assert np.array_equal(_read(form), weights), (form.kind, form.packed)
        chosen.add(form.kind)
    assert chosen == set(KINDS)


def test_copies_lie_there_once() -> None:
    rng = np.random.default_rng(0)
    small = rng.integers(1, 100, (6, 5)).astype(np.int8)
    for copies in ((4, 1), (1, 3), (4, 3)):
        whole = np.kron(small, np.ones(copies, np.int8))
        form = stored("c", "c", whole)
        assert form.copies == copies and form.bytes == small.size and np.array_equal(_read(form), whole)
        whole[-1, -1] -= 1  # one that is not a copy
        assert stored("c", "c", whole).copies == (1, 1)


@needs_c
@pytest.mark.parametrize("delay", [None, "axonal", "dendritic"])
@pytest.mark.parametrize("bits", [8, 4])
def test_copies_run_the_same_bits(bits: int, delay: str | None, tmp_path: Path) -> None:
    """Signed neurons in copies, plain ones that read them, events in copies; in loops and with delays."""
    torch.manual_seed(0)
    net = Network(dt=1.0)
    x, u = net.input(9, name="x", kind="events"), net.population(SigmaDelta(12, v_start=torch.rand(12) - 0.5), name="u")
    h, y = net.population(LIF(21, threshold=0.4), name="h"), net.population(Integrator(5, tau_mem=10.0), name="y")
    later = Delay(max=4.0, min=1.0, kind=delay) if delay else None  # type: ignore[arg-type]
    net.connect(x, u, Copies(torch.randn(3, 3), targets=4, sources=3))
    loop = net.connection(net.connect(u, u, Dense(gain=1.0, delay=later)))
    with torch.no_grad():
        loop.weight.copy_(torch.kron(torch.randn(3, 3) / 5, torch.ones(4, 4)))
    net.connect(u, h, Copies(torch.randn(21, 3) * (torch.rand(21, 3) > 0.5), sources=4))
    net.connect(h, u, Copies(torch.randn(3, 21) / 4, targets=4))
    net.connect(h, y, Dense())
    net.readout(y, "sum")
    inet = quantize(net.eval(), spikes(0).clip(0, 1), weight_bits=bits)
    forms = {c.name: stored(c.name, "c", c.weights).copies for p in inet.populations for c in p.connections}
    assert forms == {"x_to_u": (4, 3), "u_to_u": (4, 4), "u_to_h": (1, 4), "h_to_u": (4, 1), "h_to_y": (1, 1)}
    CTarget().export(inet, tmp_path, "net")
    found = verify(CTarget(), inet, tmp_path, "net", spikes(3).clip(0, 1))
    counts = (found.differing_spikes, found.differing_readouts, found.differing_states, found.differing_classes)
    assert counts == (0, 0, 0, 0) and found.passed, found
    assert -1 in inet.run(spikes(3).clip(0, 1)).outputs["u"]


def _read(form: Any) -> np.ndarray:
    """The weights back from the printed constants."""
    arrays: dict[str, list[int]] = {}
    for line in " ".join(form.arrays()).split("static const ")[1:]:
        name = line.split()[1].partition("_")[0]
        arrays[name] = [int(v) for v in line[line.index("{") + 1 : line.index("}")].split(",")]
    targets, sources = form.weights.shape
    assert sum(_width(form, name) * len(values) for name, values in arrays.items()) == form.bytes

    def value(i: int) -> int:
        return (arrays["w"][i // 2] >> 4 * (i % 2) & 15) - 8 if form.packed else arrays["w"][i]

    got = np.zeros((targets, sources), np.int8)
    for j in range(sources):
        if form.kind == "dense":
            width = 2 * ((targets + 1) // 2) if form.packed else targets
            got[:, j] = [value(j * width + i) for i in range(targets)]
        elif form.kind == "mapped":
            at = arrays["first"][j]
            for i in range(targets):
                if arrays["map"][j * ((targets + 7) // 8) + i // 8] >> i % 8 & 1:
                    got[i, j], at = value(at), at + 1
        else:
            for e in range(arrays["first"][j], arrays["first"][j + 1]):
                got[arrays["to"][e], j] = value(e)
    return np.kron(got, np.ones(form.copies, np.int8))


def _width(form: Any, name: str) -> int:
    line = next(line for line in form.arrays() if f" {name}_" in line and "static const" in line)
    return {"int8_t": 1, "uint8_t": 1, "uint16_t": 2, "uint32_t": 4}[line.split()[2]]


@needs_c
def test_footprint_is_what_the_program_takes(tmp_path: Path) -> None:
    from ranvier.deploy.tools import run_tool

    inet = compressed(4, 0.5)
    CTarget().export(inet, tmp_path, "net")
    source = (tmp_path / "net.c").read_text()
    (tmp_path / "data.c").write_text(
        source.replace("static const", "const") + "\n"  # so that the linker's names and sizes can be read
    )
    run_tool(["cc", "-Os", "-c", "data.c", "-o", "data.o"], tmp_path)
    table = run_tool(["nm", "-S", "data.o"], tmp_path).decode().split("\n")
    read = sum(int(line.split()[1], 16) for line in table if " R " in line or " r " in line)
    found = footprint(inet)
    assert found.total == read
    assert found.total == found.weights + found.delays + found.tables


def test_few_bits_and_gaps_shrink() -> None:
    sizes = {(b, s): footprint(compressed(b, s, hidden=128)).weights for b in (8, 4) for s in (0.0, 0.5, 0.9)}
    assert sizes[4, 0.0] <= 0.51 * sizes[8, 0.0]
    assert sizes[8, 0.5] < 0.7 * sizes[8, 0.0] and sizes[4, 0.9] < 0.7 * sizes[4, 0.0]
    assert sizes[8, 0.9] < 0.27 * sizes[8, 0.0]


@needs_c
def test_neurons_that_nobody_reads_are_left_out(tmp_path: Path) -> None:
    net = network()
    masks = activity_masks(net, {"h": torch.arange(37.0), "m": torch.arange(21.0)}, 0.4)
    compress(net, 8, masks)
    whole = quantize(net, spikes(0))
    small = without_unread(whole)
    assert [p.size for p in small.populations] == [37 - 15, 21 - 8, 5]
    a, b = whole.run(spikes(3)), small.run(spikes(3))
    assert np.array_equal(a.readout, b.readout) and np.array_equal(a.classes, b.classes) and np.ptp(a.readout) > 0
    assert b.outputs["h"].any()
    CTarget().export(small, tmp_path, "net")
    found = verify(CTarget(), small, tmp_path, "net", spikes(3))
    assert found.differing_spikes == found.differing_readouts == 0
    assert footprint(small).total < 0.7 * footprint(whole).total


def test_a_chain_of_unread_neurons_goes_as_a_whole() -> None:
    torch.manual_seed(0)
    net = Network(dt=1.0)
    x, a, b, y = net.input(9), *(net.population(LIF(4), name=n) for n in "ab"), net.population(Integrator(2), name="y")
    net.connect(x, a, Dense(delay=Delay(max=3.0, kind="dendritic")))
    net.connect(a, a, Dense(weight=torch.diag(torch.ones(4))))
    net.connect(a, b, Dense(weight=torch.diag(torch.ones(4))))
    net.connect(b, y, Dense(weight=torch.tensor([[1.0, 0, 0, 1], [0.5, 0, 0, 1]])))
    net.readout(y, "last")
    inet = quantize(net.eval(), spikes(0))
    small = without_unread(inet)
    assert [p.size for p in small.populations] == [2, 2, 2]
    assert np.array_equal(inet.run(spikes(1)).readout, small.run(spikes(1)).readout)
    assert [p.size for p in without_unread(small).populations] == [2, 2, 2]
