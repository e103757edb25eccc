"""The triton engine: in triton's interpreter against the plain loop, compiled for GPUs that need not be there.

Triton decides when it is imported whether it interprets, so the tests of results run in a process of their own: this
file again, with TRITON_INTERPRET=1, where the tests marked ``interpreted`` exist and the others do not.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import ranvier as rv
from ranvier.errors import EngineError
from ranvier.neurons import LIF, AdLIF, Cell, Izhikevich, Link, Neuron, available_engines, run_stage
from ranvier.neurons.engines import triton_ahead, triton_gpu, triton_launch, triton_loop
from ranvier.neurons.engines.plan import Plan, plan_of

HERE = triton_launch.interpreted()
TRITON = importlib.util.find_spec("triton") is not None
needs_triton = pytest.mark.skipif(not TRITON, reason="triton is not installed: it comes with torch for Linux and CUDA")

_spec = importlib.util.spec_from_file_location("engine_cases", Path(__file__).with_name("test_engines.py"))
assert _spec is not None and _spec.loader is not None
matrix = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(matrix)


def interpreted(test: Callable[..., None]) -> Callable[..., None] | None:
    """A test that exists only in the interpreter's process."""
    return test if HERE else None


def compiled(test: Callable[..., None]) -> Callable[..., None] | None:
    """A test that exists only outside of it."""
    return None if HERE else test


def plan(
    engine: str,
    neurons: list[Neuron],
    links: list[tuple[int, int, int, bool]],
    gradients: bool = True,
    keep_states: bool = False,
) -> Plan:
    """A plan in which everything is learned."""
    values = [{n: v.detach().clone().requires_grad_() for n, v in m.values(1.0).items()} for m in neurons]
    cells = [Cell(str(i), m.program(1.0), v) for i, (m, v) in enumerate(zip(neurons, values, strict=True))]
    size = [m.size for m in neurons]
    made = [
        Link(
            str(a), str(b), torch.zeros(size[b], size[a], requires_grad=True), d, torch.ones(1, size[a]) if m else None
        )
        for a, b, d, m in links
    ]
    return plan_of(engine, cells, made, keep_states, gradients, False)


# -- in the interpreter -----------------------------------------------------------------------------


def installed(name: str) -> tuple[int, ...]:
    """A package's version, (3, 8); () where it is not installed."""
    try:
        return tuple(map(int, version(name).split(".")[:2]))
    except PackageNotFoundError:
        return ()


interpreter_counts = pytest.mark.skipif(
    installed("triton") < (3, 7) and installed("numpy") >= (2, 4),
    reason="the interpreter of triton 3.6 cannot count with numpy 2.4: install numpy<2.4 or a later triton",
)


NO_BENCHMARKS = "an installed package has no benchmarks"


def run_in_the_interpreter(path: str) -> None:
    """Run a test module again, in a process in which triton interprets: all of it but what needs the benchmarks."""
    command = [sys.executable, "-m", "pytest", path, "-q", "-rs", "-p", "no:cacheprovider", "--no-header"]
    ran = subprocess.run(
        command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, timeout=600
    )
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
    assert re.search(r"\d+ passed", ran.stdout.splitlines()[-1]), ran.stdout[-6000:]
    skipped = [line for line in ran.stdout.splitlines() if line.startswith("SKIPPED")]
    assert all(NO_BENCHMARKS in line for line in skipped), "\n".join(skipped)
    assert not skipped or not importlib.util.find_spec("benchmarks"), "\n".join(skipped)


@compiled
@needs_triton
@interpreter_counts
def test_in_the_interpreter() -> None:
    run_in_the_interpreter(__file__)


@pytest.fixture(params=["resident", "streamed", "alternating"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The three ways to run linked cells, whatever would fit."""
    if request.param != "resident":
        monkeypatch.setattr(triton_loop, "RESIDENT", 0)
    if request.param == "alternating":
        monkeypatch.setattr(triton_loop, "REGISTERS", 0)
    triton_gpu._loop.cache_clear()
    yield request.param
    triton_gpu._loop.cache_clear()


@interpreted
def test_the_ways_to_run_are_what_they_are_called(way: str) -> None:
    loop = triton_gpu.loop_of(plan("triton", [LIF(20)], [(0, 0, 1, False)]), [20], torch.float32)
    found = (
        "alternating" if loop is None else "resident" if loop.resident(False) and loop.resident(True) else "streamed"
    )
    assert found == way


@interpreted
@pytest.mark.parametrize("recurrent", [False, True], ids=["forward", "recurrent"])
@pytest.mark.parametrize("case", matrix.CASES)
def test_every_neuron_has_the_spikes_and_gradients_of_the_plain_loop(case: str, recurrent: bool) -> None:
    links = [("n", "n", 1, False)] if recurrent else []
    scale = matrix.SCALE.get(case, 1.0)
    for seed, (steps, batch, size, keep) in enumerate([(1, 1, 1, True), (6, 3, 33, True), (7, 2, 5, False)]):
        neuron = matrix.CASES[case](size)
        matrix.check(matrix.Problem({"n": neuron}, links, steps, batch, seed, keep=keep, scale=scale), "triton")


@interpreted
@pytest.mark.parametrize(("batch", "size"), [(1, 1), (17, 17), (2, 33)])
def test_odd_shapes(way: str, batch: int, size: int) -> None:
    matrix.check(matrix.Problem({"n": matrix.CASES["lif"](size)}, [("n", "n", 1, False)], 5, batch), "triton")


@interpreted
@pytest.mark.parametrize("delays", [(3, 5), (2, 0), (1, 4)])
def test_delays_and_dropout_masks(way: str, delays: tuple[int, int]) -> None:
    neurons = {"a": matrix.CASES["lif"](5), "b": matrix.CASES["adlif"](18)}
    links = [("a", "b", delays[1], False), ("b", "a", delays[0], True), ("a", "a", 4, False)]
    matrix.check(matrix.Problem(neurons, links, 9, 2), "triton")


@interpreted
@pytest.mark.parametrize("keep", [True, False], ids=["all states", "last states"])
def test_loops_of_several_populations(way: str, keep: bool) -> None:
    matrix.check(matrix.Problem(matrix.L2MU, matrix.L2MU_LINKS, 6, 3, keep=keep), "triton")
    # both wait a step, so that neither may see what the other sends in the same one
    both = [("a", "b", 1, False), ("b", "a", 1, False)]
    neurons = {"a": matrix.CASES["lif"](4), "b": matrix.CASES["integrator"](6)}
    matrix.check(matrix.Problem(neurons, both, 6, 2, keep=keep), "triton")


@interpreted
def test_rounded_weights_are_those_that_bfloat16_holds(way: str) -> None:
    g = torch.Generator().manual_seed(3)
    weight = torch.randn(12, 12, generator=g)
    currents = {"n": torch.rand(8, 3, 12, generator=g)}
    neuron = LIF(12, tau_mem=8.0)
    found = []
    for engine, w in (("triton-bf16", weight), ("eager", weight.bfloat16().float()), ("eager", weight)):
        w = w.clone().requires_grad_()
        cell = Cell("n", neuron.program(1.0), neuron.values(1.0))
        start, past = {"n": {"v": torch.zeros(3, 12)}}, {"n": torch.zeros(1, 3, 12)}
        trace = run_stage(engine, [cell], [Link("n", "n", w, 1)], currents, start, past)["n"]
        (grad,) = torch.autograd.grad(trace.output.sum() + trace.states["v"].sum(), w)
        found.append((trace.output.detach(), trace.states["v"].detach(), grad))
    for a, b in zip(found[0], found[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found[1][1], found[2][1], atol=1e-4)  # or rounding would not have been seen


@interpreted
@pytest.mark.parametrize("mask", [None, 1.5])
def test_all_24_bits_of_a_weight_count(way: str, mask: float | None) -> None:
    """Weights of 18 bits, whose sums float32 holds exactly: the membranes are the plain loop's to the last bit."""
    g = torch.Generator().manual_seed(5)
    weight = torch.randint(-(2**17), 2**17, (12, 12), generator=g) / 2.0**18
    currents = {"n": torch.randint(0, 3, (9, 3, 12), generator=g) / 2.0}
    neuron = LIF(12, tau_mem=8.0)
    cell = Cell("n", neuron.program(1.0), neuron.values(1.0))
    link = Link("n", "n", weight, 1, None if mask is None else torch.full((3, 12), mask))
    start, past = {"n": {"v": torch.zeros(3, 12)}}, {"n": torch.ones(1, 3, 12)}
    found = [run_stage(e, [cell], [link], currents, start, past, True)["n"] for e in ("triton", "eager")]
    assert torch.equal(found[0].states["v"], found[1].states["v"])
    assert 0.05 < found[1].output.mean() < 0.95


@interpreted
def test_a_network_trains_alike() -> None:
    x, found = (torch.rand(7, 3, 6) < 0.4).float(), []
    for engine in ("eager", "triton"):
        torch.manual_seed(0)
        net = rv.Network(dt=1.0, engine=engine)
        i, h, y = net.input(6), net.population(AdLIF(10, learn=["tau_mem"])), net.population(rv.Integrator(3))
        net.connect(i, h, rv.Dense(gain=40.0))
        net.connect(h, h, rv.Dense(dropout=0.3), delay=2.0)
        net.connect(h, y, rv.Dense())
        first = net(x[:4])
        second = net(x[4:], state=first.state)
        (first.output.square().sum() + second.output.square().sum()).backward()
        found.append({"output": second.output.detach(), **{n: p.grad for n, p in net.named_parameters()}})
    assert found[0]["output"].abs().sum() > 0
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-4, atol=1e-5)


@interpreted
def test_nothing_to_run_and_a_sample_that_is_not_a_number(way: str) -> None:
    neuron = LIF(5, tau_mem=8.0)
    cell = Cell("n", neuron.program(1.0), neuron.values(1.0))
    link = Link("n", "n", torch.eye(5, requires_grad=True), 1)

    def run(current: Tensor) -> Any:
        batch = current.shape[1]
        start, past = {"n": {"v": torch.full((batch, 5), 0.5)}}, {"n": torch.zeros(1, batch, 5)}
        return run_stage("triton", [cell], [link], {"n": current.requires_grad_()}, start, past)["n"]

    for steps, batch in ((0, 2), (3, 0)):
        trace = run(torch.ones(steps, batch, 5))
        assert trace.output.shape == (steps, batch, 5)
        trace.output.sum().backward()
    assert torch.equal(run(torch.ones(0, 2, 5)).states["v"], torch.full((1, 2, 5), 0.5))
    spoilt = torch.ones(4, 3, 5)
    spoilt[1, 1] = float("nan")
    whole, clean = run(spoilt), run(torch.ones(4, 3, 5))
    assert torch.isnan(whole.states["v"][:, 1]).all()
    for sample in (0, 2):
        assert torch.equal(whole.states["v"][:, sample], clean.states["v"][:, sample])
        assert torch.equal(whole.output[:, sample], clean.output[:, sample])


@interpreted
def test_a_loop_that_the_gpu_refuses_is_run_by_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    from triton.runtime.errors import OutOfResources

    refused, launch = [], triton_gpu.launch

    def refuse(kernel: Any, grid: int, numbers: Any, tensors: Any, **options: Any) -> None:
        if "maxnreg" in options:  # a loop whose weights stay in registers
            refused.append(kernel)
            raise OutOfResources(300000, 232448, "shared memory")
        launch(kernel, grid, numbers, tensors, **options)

    monkeypatch.setattr(triton_gpu, "launch", refuse)
    monkeypatch.setattr(triton_gpu, "_TOO_LARGE", set())
    problem = matrix.Problem({"n": matrix.CASES["lif"](5)}, [("n", "n", 1, False)], 5, 2)
    for _ in range(2):
        matrix.check(problem, "triton")
        assert len(refused) == 2  # once forward and once backward, and then it is known


@compiled
def test_what_fits_depends_on_the_gpu() -> None:
    made, size = plan("triton", [LIF(256)], [(0, 0, 1, False)]), [256]
    chunks = {}
    for capability, shared in triton_loop.SHARED.items():
        loop = triton_gpu.loop_of(made, size, torch.float32, shared)
        assert loop is not None
        chunks[capability] = loop.chunk
    assert chunks == {80: 32, 86: 16, 89: 16, 90: 32}
    assert triton_gpu.loop_of(made, size, torch.float32, 0) is None  # no bfloat16 product


@interpreted
def test_float64_is_run_by_turns() -> None:
    problem = matrix.Problem({"n": matrix.CASES["exponential"](5)}, [("n", "n", 1, True)], 6, 2)
    for (n, a), b in zip(
        problem.run("triton", torch.float64)[1].items(), problem.run("eager", torch.float64)[1].values(), strict=True
    ):
        torch.testing.assert_close(a, b, msg=n)


# -- pieces of weights ------------------------------------------------------------------------------


def test_three_pieces_are_the_number_and_bfloat16_holds_each() -> None:
    g = torch.Generator().manual_seed(0)
    values = torch.randn(1000, generator=g) * 10 ** torch.randint(-6, 7, (1000,), generator=g)
    values = torch.cat([values, torch.tensor([0.0, -0.0, 1.0, 1 + 2**-23, 16777215.0])])
    cut = triton_gpu.pieces(values, 3)
    assert torch.equal(cut.double().sum(0), values.double())
    assert torch.equal(cut.bfloat16().float(), cut)
    assert not torch.equal(cut[:2].double().sum(0), values.double())  # two would not do


# -- compiled ahead of time -------------------------------------------------------------------------


@compiled
@needs_triton
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("neuron", [LIF, AdLIF])
def test_kernels_for_256_neurons_compile_and_spill_no_register(neuron: type[Neuron], capability: int) -> None:
    kernels = triton_ahead.compile_stage(plan("triton", [neuron(256)], [(0, 0, 1, False)]), [256], capability)
    assert set(kernels) == {"cell0 forward", "cell0 backward", "loop forward", "loop backward"}
    for name, found in kernels.items():
        assert found.spills == 0, f"{name}: {found}"
        assert found.shared <= triton_loop.SHARED[capability], f"{name}: {found}"
        assert (found.tensor_core > 0) == name.startswith("loop"), f"{name}: {found}"


@compiled
@needs_triton
def test_weights_that_stay_in_registers_spill_none_either() -> None:
    for engine, size in (("triton", 128), ("triton-bf16", 256)):
        made = plan(engine, [LIF(size)], [(0, 0, 1, False)])
        loop = triton_loop.Loop(made, (size,), engine == "triton")
        assert loop.resident(backward=False)
        found = triton_ahead.compile_stage(made, [size], 90)
        assert all(k.spills == 0 for k in found.values()), found


@compiled
@needs_triton
def test_spilled_registers_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_loop, "RESIDENT", 0)
    monkeypatch.setitem(triton_launch.OPTIONS, "maxnreg", 40)
    found = triton_ahead.compile_stage(plan("triton", [Izhikevich(64)], [(0, 0, 1, True)]), [64], 80)
    assert found["loop backward"].spills > 0


@compiled
def test_too_large_a_stage_is_run_by_turns() -> None:
    links = [(0, 0, 1, False)]
    assert triton_gpu.loop_of(plan("triton", [LIF(256)], links), [256], torch.float32) is not None
    assert triton_gpu.loop_of(plan("triton", [LIF(512)], links), [512], torch.float32) is None
    assert triton_gpu.loop_of(plan("triton", [LIF(16)], links), [16], torch.float64) is None
    assert triton_gpu.loop_of(plan("triton", [LIF(16)], []), [16], torch.float32) is None


# -- where it cannot run ----------------------------------------------------------------------------


@compiled
@pytest.mark.parametrize("engine", ["triton", "triton-bf16"])
def test_the_reason_and_the_way_out_are_said(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = rv.Network(dt=1.0, engine=engine)
    x, h = net.input(3), net.population(LIF(4))
    net.connect(x, h, rv.Dense())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(triton_gpu, "find_spec", lambda name: object())
    assert "no GPU" in available_engines()[engine]
    with pytest.raises(EngineError, match=f"{engine}.*no GPU that torch can use.*'auto'"):
        net(torch.rand(3, 2, 3))
    monkeypatch.setattr(triton_gpu, "find_spec", lambda name: None)
    assert "not installed" in available_engines()[engine]
    with pytest.raises(EngineError, match=r"triton is not installed.*'auto'"):
        net(torch.rand(3, 2, 3))
    monkeypatch.setattr(triton_gpu, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert available_engines()[engine] == ""
    with pytest.raises(EngineError, match=r"on cpu.*net\.cuda\(\)"):
        net(torch.rand(3, 2, 3))


# -- the benchmark ----------------------------------------------------------------------------------


@compiled
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, and the benchmark would run")
def test_the_benchmark_says_that_there_is_no_gpu() -> None:
    gpu = pytest.importorskip("benchmarks.gpu", reason=NO_BENCHMARKS)
    with pytest.raises(SystemExit, match="no GPU here"):
        gpu.main([])


def test_the_benchmark_measures_and_compares() -> None:
    gpu = pytest.importorskip("benchmarks.gpu", reason=NO_BENCHMARKS)
    work = pytest.importorskip("benchmarks.workload").Cell
    names = ["ranvier-triton", "ranvier-eager", "torch-rnn"]
    found = gpu.measure(work(2, 6, 8, 5, 0.2), names, torch.device("cpu"), rounds=2)
    assert found["ms"]["ranvier-eager"] > 0 and found["forward_ms"]["ranvier-eager"] > 0
    page = gpu.table([found], names, "a card")
    if HERE:
        assert found["agreement"]["differing_spikes"] == 0
        assert found["agreement"]["gradient_difference"] < 1e-4
    elif not torch.cuda.is_available():
        assert found["ms"]["ranvier-triton"] is None and "absent" in page
        assert "cannot run here" in found["reasons"]["ranvier-triton"]


def test_the_benchmark_knows_loops_with_delays() -> None:
    gpu = pytest.importorskip("benchmarks.gpu", reason=NO_BENCHMARKS)
    work = pytest.importorskip("benchmarks.workload").Cell
    assert gpu.Delays.parse("axonal,8-25") == gpu.Delays("axonal", 8, 25)
    for wrong in ("axonal", "somatic,5", "axonal,0", "synaptic,5-3"):
        with pytest.raises(ValueError, match="such as axonal,25"):
            gpu.Delays.parse(wrong)
    delays = gpu.Delays.parse("axonal+dendritic,2-5")
    assert [(d.kind, d.min_ms, d.max_ms) for d in delays.make()] == [("axonal", 2.0, 4.0), ("dendritic", 0.0, 1.0)]
    names = ["ranvier-triton", "ranvier-triton-one-tap", "ranvier-triton-no-delay", "ranvier-eager"]
    found = gpu.measure(work(2, 7, 8, 5, 0.2), names, torch.device("cpu"), rounds=1, delays=delays)
    assert found["ms"]["ranvier-eager"] > 0 and "axonal+dendritic 2-5" in gpu.table([found], names, "a card")
    if HERE:
        assert not found["reasons"] and found["agreement"]["differing_spikes"] == 0
        assert found["agreement"]["gradient_difference"] < 1e-4
