"""Surrogate gradients: the documented formulas, their scaling with the width, and that they can be traced."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from ranvier.errors import ConfigError
from ranvier.neurons import (
    LIF,
    SURROGATES,
    ATan,
    Boxcar,
    FastSigmoid,
    Gaussian,
    Neuron,
    SlayerExp,
    State,
    StraightThrough,
    Surrogate,
    Triangle,
    surrogate_from_spec,
    use_surrogate,
)
from ranvier.neurons.trace import fire

X = np.linspace(-3, 3, 241)  # with 0 and every edge of the widths below
WIDTHS = (0.05, 0.3, 1.0, 2.5)

FORMULA: dict[str, Any] = {
    "fast_sigmoid": lambda x, w: (1 + abs(x) / w) ** -2.0,
    "atan": lambda x, w: 1 / (1 + (x / w) ** 2),
    "triangle": lambda x, w: np.maximum(0, 1 - abs(x) / w),
    "boxcar": lambda x, w: np.where(abs(x) < w, 1 / (2 * w), 0),
    "gaussian": lambda x, w: np.exp(-0.5 * (x / w) ** 2) / math.sqrt(2 * math.pi * w * w),
    "slayer_exp": lambda x, w: 0.4 * np.exp(-abs(x) / w),
    "straight_through": lambda x, w: np.ones_like(x) / w,
    "clipped_straight_through": lambda x, w: np.where(x <= w, 1 / w, 0),
}
AREA: dict[str, Any] = {  # integral over x, by hand
    "fast_sigmoid": lambda w: 2 * w,
    "atan": lambda w: math.pi * w,
    "triangle": lambda w: w,
    "boxcar": lambda w: 1.0,
    "gaussian": lambda w: 1.0,
    "slayer_exp": lambda w: 0.8 * w,
}
each = pytest.mark.parametrize("kind", SURROGATES)


def derivative(surrogate: Surrogate, x: np.ndarray) -> np.ndarray:
    return surrogate.derivative(torch.from_numpy(x)).numpy()


@each
@pytest.mark.parametrize("width", WIDTHS)
def test_the_backward_pass_is_the_documented_formula(kind: str, width: float) -> None:
    surrogate = SURROGATES[kind](width=width)
    x = torch.from_numpy(X).requires_grad_()
    out = surrogate(x)
    assert torch.equal(out, (x > 0).double())
    scale = torch.linspace(-1, 2, len(X), dtype=torch.float64)
    (out * scale).sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), FORMULA[kind](X, width) * scale.numpy(), rtol=1e-12, atol=1e-15)


@each
@pytest.mark.parametrize("width", WIDTHS)
def test_the_antiderivative_is_0_at_0_and_has_the_derivative(kind: str, width: float) -> None:
    """Its slope by finite differences, and by torch, away from the points where the derivative has a jump."""
    surrogate = SURROGATES[kind](width=width)
    x = torch.from_numpy(X[(abs(abs(X) - width) > 1e-3)]).requires_grad_()
    y = surrogate.antiderivative(x)
    (grad,) = torch.autograd.grad(y.sum(), [x])
    h = 1e-6
    with torch.no_grad():
        slope = (surrogate.antiderivative(x + h) - surrogate.antiderivative(x - h)) / (2 * h)
        assert surrogate.antiderivative(torch.zeros(1)).item() == 0.0
    np.testing.assert_allclose(slope, surrogate.derivative(x.detach()), rtol=1e-5, atol=2e-5 / width)
    away = abs(x.detach()) > 0  # torch's slope of abs and where at 0 is a convention
    np.testing.assert_allclose(grad[away], surrogate.derivative(x.detach())[away], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", AREA)
@pytest.mark.parametrize("width", (0.1, 0.5))
def test_area_and_symmetry(kind: str, width: float) -> None:
    x = np.arange(-1_000_000, 1_000_001) * 4e-4
    y = derivative(SURROGATES[kind](width=width), x)
    assert np.trapezoid(y, x) == pytest.approx(AREA[kind](width), rel=3e-3)
    np.testing.assert_allclose(y, y[::-1], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", ["fast_sigmoid", "atan", "triangle", "slayer_exp"])
def test_a_larger_width_stretches_x_and_keeps_the_peak(kind: str) -> None:
    narrow, wide = SURROGATES[kind](width=0.5), SURROGATES[kind](width=1.0)
    np.testing.assert_allclose(derivative(narrow, X), derivative(wide, 2 * X), rtol=1e-12)
    assert derivative(narrow, np.zeros(1)) == derivative(wide, np.zeros(1)) == (0.4 if kind == "slayer_exp" else 1.0)


@pytest.mark.parametrize("kind", ["boxcar", "gaussian"])
def test_a_larger_width_stretches_x_and_keeps_the_area(kind: str) -> None:
    np.testing.assert_allclose(
        derivative(SURROGATES[kind](width=0.5), X), 2 * derivative(SURROGATES[kind](width=1.0), 2 * X), rtol=1e-12
    )


def test_sourced_constants() -> None:
    """The numbers of the papers that the docstrings name."""
    at = np.array([-0.7, 0.0, 0.2])
    np.testing.assert_allclose(derivative(FastSigmoid(0.01), at), 1 / (1 + 100 * abs(at)) ** 2)  # SuperSpike, beta 100
    alpha = 2.0  # PLIF: alpha / 2 / (1 + (pi / 2 alpha x)^2)
    np.testing.assert_allclose(
        derivative(ATan(2 / (math.pi * alpha)), at), alpha / 2 / (1 + (math.pi / 2 * alpha * at) ** 2)
    )
    np.testing.assert_allclose(derivative(SlayerExp(), at), 0.4 * np.exp(-5 * abs(at)))  # SE-adLIF: alpha 5, c 0.4
    np.testing.assert_allclose(derivative(Triangle(1.0), at), [0.3, 1.0, 0.8])
    np.testing.assert_allclose(derivative(Boxcar(0.5), at), [0, 1, 1])  # DECOLLE: 1 within half of the threshold
    np.testing.assert_allclose(derivative(Gaussian(0.5), at), np.exp(-2 * at**2) / (0.5 * math.sqrt(2 * math.pi)))
    np.testing.assert_allclose(derivative(StraightThrough(), at), 1.0)


@each
@pytest.mark.parametrize("width", (0.3, 1.0))
def test_every_derivative_has_a_step_program(kind: str, width: float) -> None:
    """A fused kernel prints the derivative: it must be made of the program's operations and compute the same."""
    surrogate = SURROGATES[kind](width=width)

    class Derivative(Neuron):
        x = State(0.0)
        output = "real"

        def step(self, x: Any, current: Any, p: Any) -> Any:
            return x, surrogate.derivative(current)

    program = Derivative(len(X)).program(1.0)
    out = program.run({"x": torch.zeros(1, len(X)).double()}, torch.from_numpy(X)[None], {})[1]
    np.testing.assert_allclose(out[0].numpy(), FORMULA[kind](X, width), rtol=1e-12, atol=1e-15)


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtype_is_kept(kind: str, dtype: torch.dtype) -> None:
    surrogate, x = SURROGATES[kind](), torch.linspace(-1, 1, 5, dtype=dtype, requires_grad=True)
    assert surrogate.derivative(x.detach()).dtype == dtype
    surrogate(x).sum().backward()
    assert x.grad is not None and x.grad.dtype == dtype


def test_not_a_number_does_not_spike() -> None:
    assert FastSigmoid()(torch.tensor([math.nan, -math.inf, math.inf])).tolist() == [0.0, 0.0, 1.0]


@each
def test_spec_round_trip(kind: str) -> None:
    surrogate = SURROGATES[kind](width=0.37)
    assert surrogate_from_spec(surrogate.spec()) == surrogate
    assert surrogate.spec()["kind"] == kind


@each
@pytest.mark.parametrize("width", [0.0, -1.0, math.nan, math.inf, "1", None, True])
def test_wrong_widths_are_refused(kind: str, width: Any) -> None:
    with pytest.raises(ConfigError, match="width must be a positive number"):
        SURROGATES[kind](width=width)


def test_wrong_specs_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown kind None; known: fast_sigmoid"):
        surrogate_from_spec({})
    with pytest.raises(ConfigError, match="surrogate atan"):
        surrogate_from_spec({"kind": "atan", "slope": 3.0})
    with pytest.raises(ConfigError, match="scale must be a positive number"):
        SlayerExp(scale=math.nan)


def test_a_surrogate_of_ones_own_trains_and_says_when_it_cannot_be_saved() -> None:
    class Mine(Surrogate):
        kind = "mine"

        def derivative(self, x: torch.Tensor) -> torch.Tensor:
            return torch.exp(-abs(x) / self.width)

    neuron = LIF(2, surrogate=Mine(0.5))
    x = torch.tensor([[0.9, 1.2]], requires_grad=True)
    out = neuron.program(1.0).run({"v": torch.zeros(1, 2)}, x, neuron.values(1.0))[1]
    out.sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), np.exp(-np.abs([[0.9 - 1, 1.2 - 1]]) / 0.5), rtol=1e-5)
    with pytest.raises(ConfigError, match=r"set SURROGATES\[Mine.kind\]"):
        neuron.program(1.0).to_json()
    SURROGATES["mine"] = Mine
    try:
        assert type(neuron.program(1.0)).from_json(neuron.program(1.0).to_json()).surrogate == Mine(0.5)
    finally:
        del SURROGATES["mine"]
    with pytest.raises(NotImplementedError):
        Surrogate().derivative(torch.zeros(1))


def test_fire_by_hand_uses_the_surrogate_in_force() -> None:
    grads = []
    for surrogate in (StraightThrough(2.0), StraightThrough(4.0)):
        x = torch.zeros(1, requires_grad=True)
        with use_surrogate(surrogate):
            fire(x).backward()
        grads.append(x.grad)
    assert grads == [torch.tensor([0.5]), torch.tensor([0.25])]
    x = torch.full((1,), 0.1, requires_grad=True)
    fire(x).backward()
    assert x.grad is not None and x.grad.item() == pytest.approx(0.25)  # FastSigmoid(0.1) outside
