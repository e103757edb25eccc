"""The step program: what is traced, how it prints, folds, shares, reads back from JSON, and what it refuses."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ranvier.errors import ConfigError, TraceError
from ranvier.neurons import (
    ALIF,
    LIF,
    AdLIF,
    CuBaLIF,
    Integrator,
    Izhikevich,
    Neuron,
    Op,
    Parameter,
    State,
    StepProgram,
    StraightThrough,
    Triangle,
    fire,
    reset,
)
from ranvier.neurons.program import ARITY, TORCH, Builder, prune

THIS = Path(__file__)
ALL = [LIF, CuBaLIF, AdLIF, ALIF, Izhikevich, Integrator]


def line_of(marker: str) -> str:
    """``file:line`` of the line of this file that ends with the comment ``marker``."""
    for number, line in enumerate(THIS.read_text().splitlines(), 1):
        if line.endswith(f"# {marker}"):
            return f"{THIS}:{number}"
    raise AssertionError(marker)


class Real(Neuron):
    """A neuron that does not spike, with one state: a frame for tracing single expressions."""

    k = Parameter(2.0)
    x = State(0.0)
    output = "real"


def real(step: Any, **names: Any) -> Real:
    return type("Expression", (Real,), {"step": step, **names})(3)


def evaluate(neuron: Neuron, x: torch.Tensor, current: torch.Tensor) -> torch.Tensor:
    return neuron.program(1.0).run({"x": x}, current, neuron.values(1.0))[1]


# -- what it looks like
# ---------------------------------------------------------------------------------------------------


def test_a_program_prints_as_readable_lines() -> None:
    assert str(LIF(4, surrogate=Triangle(0.5)).program(1.0)).splitlines() == [
        "step(v, current; threshold, decay_mem)",
        "  mul = v * decay_mem",
        "  v_new = mul + current",
        "  sub = v_new - threshold",
        "  spike = fire(sub)",
        "  mul_2 = spike * threshold",
        "  v_after = v_new - mul_2",
        "  next: v <- v_after",
        "  output: spike (binary)",
        "  surrogate: Triangle(width=0.5)",
    ]


def test_printed_lines_say_what_each_operation_is() -> None:
    assert str(Op("a", "gt", ("x", 0.5))) == "a = x > 0.5"
    assert str(Op("b", "where", ("a", "x", -1.0))) == "b = where(a, x, -1)"
    assert "(no state)" in str(StepProgram((), (), (), {}, "current", "real"))
    with_number = StepProgram(("v",), (), (), {"v": 0.25}, "current", "real", {"v": 0.0})
    assert "v <- 0.25" in str(with_number)


@pytest.mark.parametrize("model", ALL)
@pytest.mark.parametrize("options", [{}, {"reset_delayed": True}, {"refractory": 3.0, "detach_reset": True}])
def test_json_round_trip_is_equal(model: type[Neuron], options: dict[str, Any]) -> None:
    if model is Integrator and "refractory" in options:
        options = {}
    program = model(3, **options).program(0.5)
    again = StepProgram.from_json(json.loads(json.dumps(program.to_json())))
    assert again == program
    assert str(again) == str(program)


def test_only_what_is_used_becomes_a_parameter() -> None:
    assert LIF(3).program(1.0).params == ("threshold", "decay_mem")
    assert LIF(3, reset="to_value").program(1.0).params == ("v_reset", "threshold", "decay_mem")
    assert set(LIF(3).values(1.0)) == {"threshold", "decay_mem"}


def test_surrogate_and_integrator_changes_reach_the_program() -> None:
    neuron = Izhikevich(2)
    before = neuron.program(1.0)
    neuron.surrogate = Triangle(0.3)
    assert neuron.program(1.0).surrogate == Triangle(0.3)
    neuron.integrator = "izh2003"
    assert len(neuron.program(1.0).ops) > len(before.ops)


# -- building
# -------------------------------------------------------------------------------------------------------------


def test_common_subexpressions_are_shared() -> None:
    def step(self: Any, x: Any, current: Any, p: Any) -> Any:
        return x * p.k + current, (p.k * x + current) * (current + x * p.k)

    kinds = [op.kind for op in real(step).program(1.0).ops]
    assert kinds == ["mul", "add", "mul"]  # x k once, although written three times and in both orders


def test_order_matters_where_it_must() -> None:
    b = Builder(["x", "y"])
    assert b.emit("sub", "x", "y") != b.emit("sub", "y", "x")
    assert b.emit("gt", "x", "y") != b.emit("gt", "y", "x")
    assert b.emit("max", "x", "y") == b.emit("max", "y", "x")


def test_constants_are_folded_and_neutral_elements_vanish() -> None:
    b = Builder(["x"])
    assert b.emit("add", 1.0, 2.0) == 3.0
    assert b.emit("where", b.emit("gt", 2.0, 1.0), 5.0, 6.0) == 5.0
    assert b.emit("add", "x", 0.0) == "x" == b.emit("mul", 1.0, "x")
    assert b.ops == []

    def step(self: Any, x: Any, current: Any, p: Any) -> Any:
        half = torch.exp(torch.zeros_like(x)) / 2.0
        return x * (half + half), current

    assert real(step).program(1.0).ops == ()


@pytest.mark.parametrize(
    ("kind", "args"), [("div", (1.0, 0.0)), ("sqrt", (-1.0,)), ("exp", (1e4,)), ("mul", (1e200, 1e200))]
)
def test_folding_to_something_not_finite_is_refused(kind: str, args: tuple[float, ...]) -> None:
    with pytest.raises(TraceError, match="not a finite number"):
        Builder([]).emit(kind, *args)


def test_pruning_keeps_only_what_results_need() -> None:
    ops = (Op("a", "add", ("x", 1.0)), Op("b", "mul", ("x", 2.0)), Op("c", "neg", ("a",)))
    assert prune(ops, ["c"]) == (ops[0], ops[2])

    def step(self: Any, x: Any, current: Any, p: Any) -> Any:
        torch.exp(x)
        return x + current, x

    assert [op.kind for op in real(step).program(1.0).ops] == ["add"]


EXPRESSIONS: dict[str, tuple[Any, Any]] = {
    "add": (lambda x, c: x + c, np.add),
    "sub": (lambda x, c: x - c, np.subtract),
    "rsub": (lambda x, c: 2.0 - x, lambda x, c: 2.0 - x),
    "mul": (lambda x, c: torch.mul(x, c), np.multiply),
    "div": (lambda x, c: x / (c * c + 1), lambda x, c: x / (c * c + 1)),
    "rdiv": (lambda x, c: 3.0 / (x * x + 1), lambda x, c: 3.0 / (x * x + 1)),
    "neg": (lambda x, c: -x, lambda x, c: -x),
    "pos": (lambda x, c: +x, lambda x, c: x),
    "abs": (lambda x, c: abs(x), lambda x, c: abs(x)),
    "abs()": (lambda x, c: x.abs(), lambda x, c: abs(x)),
    "minimum": (lambda x, c: torch.minimum(x, c), np.minimum),
    "maximum": (lambda x, c: torch.maximum(x, c), np.maximum),
    "min": (lambda x, c: torch.min(x, c), np.minimum),
    "max": (lambda x, c: torch.max(x, c), np.maximum),
    "exp": (lambda x, c: torch.exp(x), lambda x, c: np.exp(x)),
    "reciprocal": (lambda x, c: torch.reciprocal(x + 9), lambda x, c: 1 / (x + 9)),
    "sqrt": (lambda x, c: torch.sqrt(abs(x)), lambda x, c: np.sqrt(abs(x))),
    "gt": (lambda x, c: x > c, lambda x, c: x > c),
    "ge": (lambda x, c: x >= 0.5, lambda x, c: x >= 0.5),
    "lt": (lambda x, c: x < c, lambda x, c: x < c),
    "le": (lambda x, c: x <= 0.5, lambda x, c: x <= 0.5),
    "where": (lambda x, c: torch.where(x > c, x * 2, c), lambda x, c: np.where(x > c, x * 2, c)),
    "where number": (lambda x, c: torch.where(x > c, 1.0, c), lambda x, c: np.where(x > c, 1.0, c)),
    "and": (lambda x, c: (x > 0) & (c > 0), lambda x, c: (x > 0) & (c > 0)),
    "or": (lambda x, c: (x > 0) | (c > 0), lambda x, c: (x > 0) | (c > 0)),
    "not": (lambda x, c: ~((x > 0) & ~(c > 0)), lambda x, c: ~((x > 0) & ~(c > 0))),
    "logical_and": (lambda x, c: torch.logical_and(x > 0, torch.logical_not(c > 0)), lambda x, c: (x > 0) & ~(c > 0)),
    "logical_or": (lambda x, c: torch.logical_or(x > 0, c > 0), lambda x, c: (x > 0) | (c > 0)),
    "pow 2": (lambda x, c: x**2, lambda x, c: x**2),
    "pow 3": (lambda x, c: torch.pow(x, 3), lambda x, c: x**3),
    "pow 4": (lambda x, c: x**4, lambda x, c: x**4),
    "pow -1": (lambda x, c: (x + 9) ** -1, lambda x, c: 1 / (x + 9)),
    "pow .5": (lambda x, c: abs(x) ** 0.5, lambda x, c: abs(x) ** 0.5),
    "square": (lambda x, c: torch.square(x), lambda x, c: x**2),
    "relu": (lambda x, c: torch.relu(x), lambda x, c: np.maximum(x, 0)),
    "sigmoid": (lambda x, c: torch.sigmoid(x), lambda x, c: 1 / (1 + np.exp(-x))),
    "tanh": (lambda x, c: torch.tanh(x), lambda x, c: np.tanh(x)),
    "clamp": (lambda x, c: torch.clamp(x, -0.5, 0.75), lambda x, c: np.clip(x, -0.5, 0.75)),
    "clamp min": (lambda x, c: x.clamp(min=-0.5), lambda x, c: np.maximum(x, -0.5)),
    "clip max": (lambda x, c: torch.clip(x, max=0.5), lambda x, c: np.minimum(x, 0.5)),
    "detach": (lambda x, c: x.detach() + c, lambda x, c: x + c),
    "zeros_like": (lambda x, c: torch.zeros_like(x) - x, lambda x, c: -x),
    "ones_like": (lambda x, c: torch.ones_like(x) + x, lambda x, c: 1 + x),
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_every_operation_computes_what_numpy_does(name: str) -> None:
    ours, numpy = EXPRESSIONS[name]

    def step(self: Any, x: Any, current: Any, p: Any) -> Any:
        return x, ours(x, current)

    generator = np.random.default_rng(5)
    x, c = generator.normal(size=(2, 8, 3)) * 2
    x[0], c[1], x[2, 0] = 0.5, 0.0, c[2, 0]  # equal operands for the comparisons
    got = evaluate(real(step), torch.from_numpy(x), torch.from_numpy(c))
    assert got.dtype == torch.float64
    np.testing.assert_allclose(got.numpy(), np.asarray(numpy(x, c), dtype=float), rtol=1e-14, atol=1e-15)


def test_every_operation_kind_is_reached_by_the_tests_above() -> None:
    def expression(ours: Any) -> Any:
        def step(self: Any, x: Any, current: Any, p: Any) -> Any:
            return x, ours(x, current)

        return step

    kinds = {op.kind for ours, _ in EXPRESSIONS.values() for op in real(expression(ours)).program(1.0).ops}
    assert kinds | {"fire"} == set(ARITY)


@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
@pytest.mark.parametrize("x", [-200.0, -90.0, 0.3, 90.0, 200.0])
def test_saturated_functions_have_finite_gradients(name: str, x: float) -> None:
    def step(self: Any, x: Any, current: Any, p: Any) -> Any:
        return x, getattr(torch, name)(x)

    at = torch.full((1, 3), x, requires_grad=True)
    evaluate(real(step), at, torch.zeros(1, 3)).sum().backward()
    other = torch.full((1, 3), x, requires_grad=True)
    getattr(torch, name)(other).sum().backward()
    assert at.grad is not None and other.grad is not None
    torch.testing.assert_close(at.grad, other.grad, rtol=1e-4, atol=1e-6)


def test_plain_numbers_and_tensors_agree() -> None:
    for kind, operation in TORCH.items():
        args = (1.0, 2.0, 0.5)[: ARITY[kind]]
        plain = operation(*args)
        tensors = operation(*(torch.tensor([a], dtype=torch.float64) for a in args))
        mixed = operation(torch.tensor([args[0]], dtype=torch.float64), *args[1:])
        assert float(tensors) == pytest.approx(float(plain), rel=1e-15), kind
        assert float(mixed) == pytest.approx(float(plain), rel=1e-15), kind


def test_constant_and_parameter_results_fill_the_batch() -> None:
    program = StepProgram(("v",), ("k",), (), {"v": 0.25}, "k", "real", {"v": "k"})
    state, out = program.run({"v": torch.zeros(2, 3)}, torch.zeros(2, 3), {"k": torch.tensor([1.5])})
    assert state["v"].tolist() == [[0.25] * 3] * 2
    assert out.tolist() == [[1.5] * 3] * 2


def test_record_receives_every_value() -> None:
    neuron, record = LIF(3), {}
    neuron.program(1.0).run({"v": torch.zeros(2, 3)}, torch.ones(2, 3), neuron.values(1.0), record)
    assert {"v", "current", "threshold", "decay_mem", *(op.name for op in neuron.program(1.0).ops)} == set(record)


# -- what cannot be traced names the line
# ------------------------------------------------------------------------------------


def branch(self: Any, x: Any, current: Any, p: Any) -> Any:
    if x > 1.0:  # branch
        x = x * 0.0
    return x, x


def builtin_max(self: Any, x: Any, current: Any, p: Any) -> Any:
    return x, max(x, 0.0)  # builtin max


def and_(self: Any, x: Any, current: Any, p: Any) -> Any:
    return x, (x > 1) and (current > 1)  # and


def loop(self: Any, x: Any, current: Any, p: Any) -> Any:
    return x, sum(part for part in x)  # loop


def unpack(self: Any, x: Any, current: Any, p: Any) -> Any:
    a, b = x  # unpack
    return a, b


def reduction(self: Any, x: Any, current: Any, p: Any) -> Any:
    return x, x - x.mean()  # reduction


def row_max(self: Any, x: Any, current: Any, p: Any) -> Any:
    return x, x.max()  # row max


def softmax(self: Any, x: Any, current: Any, p: Any) -> Any:
    return x, torch.nn.functional.softmax(x, dim=-1)  # softmax


def matrix(self: Any, x: Any, current: Any, p: Any) -> Any:
    return x, x @ current  # matrix


def unknown(self: Any, x: Any, current: Any, p: Any) -> Any:
    return x, torch.sin(x)  # unknown


def unknown_name(self: Any, x: Any, current: Any, p: Any) -> Any:
    return x, x * p.tau_memm  # unknown name


def learnable(self: Any, x: Any, current: Any, p: Any) -> Any:
    return x, x * self.gain  # learnable


def own_parameter(self: Any, x: Any, current: Any, p: Any) -> Any:
    return x, x * self.k  # own parameter


def wrong_shape(self: Any, x: Any, current: Any, p: Any) -> Any:
    return x, x + torch.ones(7)  # wrong shape


def in_place(self: Any, x: Any, current: Any, p: Any) -> Any:
    x.mul_(2.0)  # in place
    return x, x


def assign(self: Any, x: Any, current: Any, p: Any) -> Any:
    x[0] = 1.0  # assign
    return x, x


def index(self: Any, x: Any, current: Any, p: Any) -> Any:
    return x, x[0]  # index


def math_call(self: Any, x: Any, current: Any, p: Any) -> Any:
    return x, math.exp(x)  # math call


def numpy_call(self: Any, x: Any, current: Any, p: Any) -> Any:
    return x, np.maximum(x, 1.0)  # numpy call


def to_float(self: Any, x: Any, current: Any, p: Any) -> Any:
    return x, float(x)  # to float


def length(self: Any, x: Any, current: Any, p: Any) -> Any:
    return x, len(x)  # length


def shape(self: Any, x: Any, current: Any, p: Any) -> Any:
    return x, x * x.shape[0]  # shape


def own_bug(self: Any, x: Any, current: Any, p: Any) -> Any:
    return x, undefined_name  # type: ignore[name-defined] # noqa: F821 # own bug


def infinite(self: Any, x: Any, current: Any, p: Any) -> Any:
    return x, x + math.inf  # infinite


def power(self: Any, x: Any, current: Any, p: Any) -> Any:
    return x, x**1.5  # power


def scaled_add(self: Any, x: Any, current: Any, p: Any) -> Any:
    return x, torch.add(x, current, alpha=2)  # scaled add


def rounding(self: Any, x: Any, current: Any, p: Any) -> Any:
    return x, torch.div(x, 2.0, rounding_mode="floor")  # rounding


def not_a_comparison(self: Any, x: Any, current: Any, p: Any) -> Any:
    return x, x & current  # not a comparison


def folded(self: Any, x: Any, current: Any, p: Any) -> Any:
    return x, x + 1.0 / torch.zeros_like(x)  # folded


CANNOT = {
    branch: "branches on a value",
    builtin_max: "branches on a value",
    and_: "branches on a value",
    loop: "iterates over a value",
    unpack: "getitem|iterates",
    reduction: r"mean\(\) mixes neurons",
    row_max: r"max\(\) mixes neurons|operands it does not take",
    softmax: r"softmax\(\) mixes neurons",
    matrix: r"matmul\(\) mixes neurons",
    unknown: "'sin' has no step-program form",
    unknown_name: r"p\.tau_memm is neither a Parameter nor returned by derive\(\); known: v_reset, k",
    learnable: "a tensor is used directly",
    own_parameter: "a tensor is used directly",
    wrong_shape: "a tensor is used directly",
    in_place: "'mul_' has no step-program form",
    assign: "does not support item assignment",
    index: "'getitem' has no step-program form",
    math_call: "must be real number",
    numpy_call: "",
    to_float: "float",
    length: "",
    shape: "",
    own_bug: "NameError",
    infinite: "the literal inf is not finite",
    power: "a power must be",
    scaled_add: "alpha",
    rounding: "operand of type str|does not take",
    not_a_comparison: "take comparisons",
    folded: "not a finite number",
}


@pytest.mark.parametrize("step", CANNOT, ids=lambda f: f.__name__)
def test_what_cannot_be_traced_names_file_and_line(step: Any) -> None:
    neuron = real(step)
    neuron.gain = torch.nn.Parameter(torch.ones(1))
    marker = step.__name__.rstrip("_").replace("_", " ")
    with pytest.raises(TraceError) as caught:
        neuron.program(1.0)
    message = str(caught.value)
    assert line_of(marker) + ":" in message, message
    assert re.search(CANNOT[step], message), message
    assert message.startswith("Expression.step (")


def test_the_users_line_is_found_in_a_folder_called_torch(tmp_path: Path) -> None:
    folder = tmp_path / "torch"
    folder.mkdir()
    code = "import torch\ndef step(self, x, current, p):\n    return x, torch.sin(x)\n"
    (folder / "mine.py").write_text(code)
    space: dict[str, Any] = {}
    exec(compile(code, str(folder / "mine.py"), "exec"), space)
    with pytest.raises(TraceError, match=re.escape(f"{folder / 'mine.py'}:3")):
        real(space["step"]).program(1.0)


def here(step: Any) -> str:
    return f"({THIS}:{step.__code__.co_firstlineno})"


def one_value(self: Any, x: Any, current: Any, p: Any) -> Any:
    return x + current


def three_values(self: Any, x: Any, current: Any, p: Any) -> Any:
    return x, x, x


def returns_none(self: Any, x: Any, current: Any, p: Any) -> Any:
    return x, None


def returns_tensor(self: Any, x: Any, current: Any, p: Any) -> Any:
    return torch.zeros(3), x


def wrong_name(self: Any, y: Any, current: Any, p: Any) -> Any:
    return y, y


def wrong_order(self: Any, current: Any, x: Any, p: Any) -> Any:
    return x, x


def no_p(self: Any, x: Any, current: Any) -> Any:
    return x, x


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (one_value, r"must return its 1 next state\(s\) \(x\) and then its output; it returned 1 value"),
        (three_values, "it returned 3 value"),
        (returns_none, "returned NoneType for output"),
        (returns_tensor, "returned Tensor for x"),
        (wrong_name, r"takes \(y, current, p\); it must take the declared states \(x\), then current and p"),
        (wrong_order, r"takes \(current, x, p\)"),
        (no_p, r"takes \(x, current\)"),
    ],
)
def test_wrong_signatures_and_results_name_the_step(step: Any, why: str) -> None:
    with pytest.raises(TraceError, match=why) as caught:
        real(step).program(1.0)
    assert here(step) in str(caught.value)


def test_a_neuron_without_a_step_says_so() -> None:
    class Nothing(Neuron):
        pass

    with pytest.raises(TraceError, match="Nothing defines no step"):
        Nothing(3).program(1.0)
    with pytest.raises(TraceError, match="Nothing defines no step"):
        Nothing(3).step()


class Spiking(Neuron):
    threshold = Parameter(1.0)
    v = State(0.0, reset=True)
    w = State(0.0)


def two_fires(self: Any, v: Any, w: Any, current: Any, p: Any) -> Any:
    spike = fire(v - p.threshold)
    return v, w + fire(v + 1), spike


def two_resets(self: Any, v: Any, w: Any, current: Any, p: Any) -> Any:
    spike = fire(v - p.threshold)
    return reset(reset(v, spike), spike), w, spike


def dropped_reset(self: Any, v: Any, w: Any, current: Any, p: Any) -> Any:
    v = v + current
    spike = fire(v - p.threshold)
    reset(v, spike)
    return v, w, spike


def not_the_spike(self: Any, v: Any, w: Any, current: Any, p: Any) -> Any:
    return v, w, fire(v - p.threshold) * 2.0


def no_fire(self: Any, v: Any, w: Any, current: Any, p: Any) -> Any:
    return v, w, v


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (two_fires, "may call fire.. once"),
        (two_resets, "reset.. at most once; found 1 and 2"),
        (dropped_reset, r"reset\(\) returns must reach the next v"),
        (not_the_spike, r"output is 'binary', but the output is not what fire\(\) returned"),
        (no_fire, r"output is 'binary', but the output is not what fire\(\) returned"),
    ],
)
def test_wrong_spikes_and_resets_are_refused(step: Any, why: str) -> None:
    with pytest.raises(TraceError, match=why) as caught:
        type("Spikes", (Spiking,), {"step": step})(3).program(1.0)
    assert here(step) in str(caught.value)


def test_a_spike_as_real_output_is_refused_and_an_inner_one_is_not() -> None:
    def step(self: Any, v: Any, w: Any, current: Any, p: Any) -> Any:
        v = v + current
        spike = fire(v - p.threshold)
        return v, w + spike, w if self.integrator == "euler" else spike

    graded = type("Graded", (Spiking,), {"step": step, "output": "real"})
    with pytest.raises(TraceError, match="output is 'real', but the output is a spike"):
        graded(3).program(1.0)
    assert graded(3, integrator="euler").program(1.0).output_kind == "real"


def test_reset_marks_need_a_state_to_reset() -> None:
    class NoReset(Neuron):
        v = State(0.0)

        def step(self, v: Any, current: Any, p: Any) -> Any:
            spike = fire(v)
            return reset(v, spike), spike

    with pytest.raises(TraceError, match="no State is declared with reset=True"):
        NoReset(3).program(1.0)
    with pytest.raises(TraceError, match="marks a place"):
        reset(torch.zeros(1), torch.zeros(1))


@pytest.mark.parametrize("options", [{"reset_delayed": True}, {"refractory": 2.0}])
def test_transforms_that_cannot_tell_v_apart_are_refused(options: dict[str, Any]) -> None:
    class Memoryless(Neuron):
        threshold = Parameter(1.0)
        v = State(0.0, reset=True)

        def step(self, v: Any, current: Any, p: Any) -> Any:
            return current, fire(current - p.threshold)

    class Twins(Neuron):
        threshold = Parameter(1.0)
        v = State(0.0, reset=True)
        copy = State(0.0)

        def step(self, v: Any, copy: Any, current: Any, p: Any) -> Any:
            v = v * 0.5 + current
            return v, v, fire(v - p.threshold)

    for model in (Memoryless, Twins):
        model(3).program(1.0)
        with pytest.raises(TraceError, match="must be computed in the step and be no other state's"):
            model(3, **options).program(1.0)


@pytest.mark.parametrize("name", ["v", "current"])
def test_derived_values_may_not_take_the_name_of_an_argument(name: str) -> None:
    class Clash(LIF):
        def derive(self, dt: float) -> Any:
            return {**super().derive(dt), name: self.tau_mem}

    with pytest.raises(TraceError, match=f"'{name}' is both"):
        Clash(3).program(1.0)


def test_states_and_names_must_be_plain_identifiers() -> None:
    class Greek(Neuron):
        τ = State(0.0)
        output = "real"

        def step(self, τ: Any, current: Any, p: Any) -> Any:
            return τ + current, τ

    with pytest.raises(TraceError, match="ASCII"):
        Greek(3).program(1.0)


# -- malformed programs
# ------------------------------------------------------------------------------------------------------

GOOD = LIF(3, refractory=2.0, reset="to_value").program(1.0).to_json()


def altered(**changes: Any) -> dict[str, Any]:
    return {**json.loads(json.dumps(GOOD)), **changes}


MALFORMED: dict[str, tuple[Any, str]] = {
    "unknown operation": (altered(ops=[["a", "system", "v"]]), "unknown operation 'system'"),
    "too few operands": (altered(ops=[["a", "add", "v"]]), "add takes 2 operands, got 1"),
    "undefined": (altered(ops=[["a", "neg", "b"]]), "'b', which is not defined before it"),
    "read before": (altered(ops=[["a", "neg", "b"], ["b", "neg", "v"]]), "not defined before it"),
    "assigned twice": (altered(ops=[["a", "neg", "v"], ["a", "abs", "v"]]), "'a' is assigned twice"),
    "assigns an input": (altered(ops=[["v", "neg", "v"]]), "'v' is assigned twice"),
    "literal nan": (altered(ops=[["a", "add", "v", math.nan]]), "not finite"),
    "only literals": (altered(ops=[["a", "add", 1.0, 2.0]]), "no operand but literals"),
    "fire of a number": (altered(ops=[["spike", "fire", 0.5]]), "no operand but literals"),
    "boolean operand": (altered(ops=[["a", "add", "v", True]]), "malformed"),
    "huge integer": (altered(ops=[["a", "add", "v", 10**400]]), "malformed"),
    "name not text": (altered(ops=[[1, "neg", "v"]]), "malformed"),
    "code as a name": (altered(ops=[["a; system(0)", "neg", "v"]]), "not a name made of ASCII"),
    "state with a space": (altered(states=["v w", "refractory_left"]), "not a name"),
    "states a string": (altered(states="v"), "not a list of names"),
    "state twice": (altered(states=["v", "v", "refractory_left"]), "v names two of its inputs"),
    "state called current": (altered(states=["current"]), "current names two"),
    "parameter is a state": (altered(params=["v"]), "v names two"),
    "no next": (altered(next_state={"v": "v"}), "next and initial values"),
    "next of an unknown": (altered(next_state={**GOOD["next_state"], "x": 0.0}), "next and initial values"),
    "next infinite": (altered(next_state={**GOOD["next_state"], "v": math.inf}), "not finite"),
    "initial not a parameter": (altered(initial={**GOOD["initial"], "v": "spike"}), "must be a number or a parameter"),
    "output undefined": (altered(output="nothing"), "'nothing' is not defined"),
    "output kind": (altered(output_kind="text"), "output kind 'text'"),
    "surrogate missing": (altered(surrogate=None), "names no surrogate"),
    "surrogate unknown": (altered(surrogate={"kind": "mine", "width": 1.0}), "unknown kind 'mine'"),
    "surrogate kind a list": (altered(surrogate={"kind": [], "width": 1.0}), "unknown kind"),
    "surrogate width": (altered(surrogate={"kind": "triangle", "width": -1.0}), "width must be a positive"),
    "surrogate width text": (altered(surrogate={"kind": "triangle", "width": "1"}), "width must be a positive"),
    "surrogate field": (altered(surrogate={"kind": "triangle", "w": 1.0}), "unexpected keyword"),
    "no key": ({k: v for k, v in GOOD.items() if k != "ops"}, "malformed"),
    "a list": ([], "malformed"),
    "null": (None, "malformed"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_programs_are_refused(name: str) -> None:
    data, why = MALFORMED[name]
    with pytest.raises(TraceError, match=why):
        StepProgram.from_json(data)


def test_the_unaltered_program_is_read() -> None:
    assert StepProgram.from_json(altered()) == LIF(3, refractory=2.0, reset="to_value").program(1.0)


scalars = st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=6)
scalars |= st.sampled_from(["v", "current", "spike", "threshold", "add", "fire", "where", "real"])
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)


def mutate(data: Any, path: list[int], new: Any) -> Any:
    """Replace what ``path`` leads to by ``new``; None for a leaf's parent deletes it."""
    if not path or not isinstance(data, dict | list) or not data:
        return new
    key = list(data)[path[0] % len(data)] if isinstance(data, dict) else path[0] % len(data)
    copy = dict(data) if isinstance(data, dict) else list(data)
    copy[key] = mutate(data[key], path[1:], new)
    return copy


@settings(max_examples=400, deadline=None)
@given(st.lists(st.integers(0, 30), max_size=4), json_values)
def test_fuzzed_json_gives_a_program_or_a_trace_error(path: list[int], new: Any) -> None:
    data = mutate(GOOD, path, new)
    try:
        program = StepProgram.from_json(data)
    except TraceError:
        return
    assert StepProgram.from_json(json.loads(json.dumps(program.to_json()))) == program
    values = {n: torch.ones(1) for n in program.params}
    program.run({n: torch.zeros(1, 2) for n in program.states}, torch.ones(1, 2), values)


def test_a_straight_through_program_keeps_its_surrogate() -> None:
    program = LIF(2, surrogate=StraightThrough(2.0)).program(1.0)
    assert StepProgram.from_json(program.to_json()).surrogate == StraightThrough(2.0)


def test_wrong_dt_is_refused() -> None:
    for dt in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match="dt must be a positive time"):
            LIF(2).values(dt)
