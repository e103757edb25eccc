"""What a step of the C program costs, and that its self-test runs on the emulated Cortex-M4 as on this machine."""

from __future__ import annotations

from pathlib import Path
from shutil import which

import numpy as np
import pytest
import torch

from ranvier.deploy import IntegerNetwork, c_latency, latency, quantize
from ranvier.errors import ToolError
from ranvier.networks import Dense, Network
from ranvier.neurons import LIF, Integrator

needs_c = pytest.mark.skipif(not which("gcc"), reason="needs gcc")
needs_arm = pytest.mark.skipif(
    not (which("arm-none-eabi-gcc") and which("qemu-system-arm")), reason="needs arm-none-eabi-gcc and qemu-system-arm"
)


def spikes(batch: int = 3) -> np.ndarray:
    return (np.random.default_rng(1).random((20, batch, 7)) < 0.4).astype(np.uint8)


def small(hidden: int) -> IntegerNetwork:
    torch.manual_seed(0)
    net = Network(dt=1.0)
    x, h = net.input(7, name="x", kind="events"), net.population(LIF(hidden, threshold=0.5), name="h")
    net.connect(x, h, Dense(gain=2.0))
    net.connect(h, h, Dense(gain=0.5))
    net.connect(h, net.population(Integrator(3), name="y"), Dense())
    net.readout("y", "sum")
    return quantize(net.eval(), spikes(20))


@needs_c
@needs_arm
def test_a_larger_network_costs_more() -> None:
    found = [c_latency(small(hidden), spikes()) for hidden in (8, 64)]
    few, many = (f["cortex_m4"] for f in found)
    assert few["differing_steps"] == many["differing_steps"] == 0
    # each of 64 neurons hears 7 inputs and 64 neurons; four instructions a neuron is less than any program takes
    assert many["instructions_per_step"] > 4 * few["instructions_per_step"] > 4 * 4 * 11
    assert many["instructions_slowest_step"] >= many["instructions_per_step"] - latency.TICK
    assert many["ram"] - few["ram"] == 56 * (4 + 2 + 1 + 1)  # accumulator, potential, last spike, spike
    assert 16 <= many["stack"] < 500
    assert 0 < found[0]["us_per_step"] < found[1]["us_per_step"] < 1e4


@needs_c
@needs_arm
def test_instructions_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop of 4 instructions, a hundred thousand times in every step, is seen as that many."""
    inet = small(8)
    plain = c_latency(inet, spikes())["cortex_m4"]["instructions_per_step"]
    loop = '__asm__ volatile("mov r2, #100000\\n1: nop\\n nop\\n subs r2, #1\\n bne 1b" : : : "r2", "cc");'
    call = "__real_{name}_step(state, in, out);\n    took ="
    assert call in latency.CORTEX
    loaded = loop.replace("mov r2, #100000", "ldr r2, =100000")
    monkeypatch.setattr(latency, "CORTEX", latency.CORTEX.replace(call, f"{loaded}\n    {call}"))
    slow = c_latency(inet, spikes())["cortex_m4"]["instructions_per_step"]
    assert slow - plain == pytest.approx(400_000, abs=2 * latency.TICK)


@needs_c
def test_a_program_that_differs_is_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    export = latency.export_c

    def damaged(inet: IntegerNetwork, folder: Path, name: str, x: np.ndarray) -> None:
        export(inet, folder, name, x)
        source = Path(folder) / f"{name}.c"
        text = source.read_text()
        bad = text.replace("state->acc[i] = 0;", "state->acc[i] = 40;")
        assert bad != text
        source.write_text(bad)

    monkeypatch.setattr(latency, "export_c", damaged)
    with pytest.raises(ToolError, match="latency"):
        c_latency(small(8), spikes())


def test_missing_tools_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "find_tool", lambda *names: None)
    found = c_latency(small(8), spikes())
    assert found["us_per_step"] is None and "sudo apt install gcc-arm-none-eabi" in found["cortex_m4"]["reason"]
