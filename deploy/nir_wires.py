"""What lies between two neurons of a NIR graph, as one connection: its weights, its bias and its delays in steps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import ConfigError, GraphError
from ..networks import Delay
from .nir_neurons import kind_of, numbers
from .nir_time import Reals

WIRES = ("Linear", "Affine", "Scale", "Delay", "Flatten")


@dataclass(frozen=True)
class Way:
    """The way from ``source`` over the wires behind it: ``weights`` [N, N_source] (None: each to its own), ``bias``
    [N], and delays in steps, ``before`` the weights ([N_source], or for every pair [N, N_source]) and ``after`` [N].
    """

    source: str
    weights: np.ndarray | None = None
    bias: Reals | float = 0.0
    before: np.ndarray | int = 0
    after: np.ndarray | int = 0

    @property
    def plain(self) -> bool:
        """Whether what is sent arrives as it is."""
        return self.weights is None and not (np.any(self.bias) or np.any(self.before) or np.any(self.after))

    @property
    def uniform(self) -> bool:
        """Whether one delay is that of all."""
        return len(np.unique(self.before)) == 1 and len(np.unique(self.after)) == 1

    def over(self, name: str, node: Any, step: float) -> Way:
        """Continued over one wire; ``step`` is a step in the graph's time.

        Raises:
            GraphError: naming the wire, for what is no connection. ConfigError: for a delay of no whole step.
        """
        kind = kind_of(node)
        if kind == "Flatten":
            return self
        if kind == "Delay":
            if np.any(self.bias):
                raise GraphError(f"NIR node {name!r}: a Delay behind an Affine has no counterpart; put it before")
            steps = _steps(name, node.delay, step)
            if self.weights is None:
                return replace(self, before=self.before + steps)
            return replace(self, after=self.after + steps)
        if kind == "Scale":
            scale = numbers(node.scale)
            weights = np.diag(scale) if self.weights is None else scale[:, None] * self.weights
            return replace(self, weights=weights, bias=self.bias * scale)
        weight = np.asarray(node.weight, np.float64)
        if weight.ndim != 2:
            raise GraphError(f"NIR node {name!r}: weights of shape {weight.shape}; [N, N_source] is needed")
        after = np.unique(self.after)
        if len(after) > 1:
            raise GraphError(f"NIR node {name!r}: different delays between two Linear nodes have no counterpart")
        bias = weight @ np.broadcast_to(self.bias, weight.shape[1]) + (numbers(node.bias) if kind == "Affine" else 0.0)
        weights = weight if self.weights is None else weight @ self.weights
        return Way(self.source, weights, bias, self.before + int(after[0]))

    def delays(self, back: int, size: int, n_source: int, dt: float) -> tuple[list[Delay], int]:
        """Fixed delays of single neurons or pairs; or, where all are alike, no such delay and the steps. ``back`` is
        what a loop costs.
        """
        before, after = np.asarray(self.before) + back, np.asarray(self.after)
        if self.uniform:
            return [], int(before.flat[0] + after.flat[0])
        if before.ndim == 2:
            given = {"synaptic": before}
        elif len(np.unique(after)) == 1:
            given = {"axonal": np.broadcast_to(before + after.flat[0], n_source)}
        elif len(np.unique(before)) == 1:
            given = {"dendritic": np.broadcast_to(after + before.flat[0], size)}
        else:
            given = {"axonal": before, "dendritic": after}
        return [Delay(max=float(s.max()) * dt, kind=k, init=s * dt, learn=False) for k, s in given.items()], 0


def joined(ways: Iterable[Way]) -> list[Way]:
    """Ways from one source that differ in their delays alone become one with a delay for every pair, as far as no two
    have a weight for the same pair; a way that brings nothing but a bias goes into the first.
    """
    result: list[Way] = []
    for way in ways:
        found = next((i for i, other in enumerate(result) if _fit(other, way)), None)
        if found is None:
            result.append(way)
            continue
        first = result[found]
        assert first.weights is not None
        assert way.weights is not None
        if np.any(way.weights):
            steps = np.broadcast_to(first.before, first.weights.shape)
            steps = np.where(way.weights != 0, np.unique(way.before)[0], steps)
            first = replace(first, weights=first.weights + way.weights, before=steps)
        result[found] = replace(first, bias=first.bias + way.bias)
    return result


def _fit(one: Way, other: Way) -> bool:
    if one.source != other.source or one.weights is None or other.weights is None:
        return False
    if not np.any(other.weights):
        return True
    alike = one.uniform or np.ndim(one.before) == 2
    apart = not np.any((one.weights != 0) & (other.weights != 0))
    return alike and other.uniform and apart and not (np.any(one.after) or np.any(other.after))


def _steps(name: str, delay: Any, step: float) -> np.ndarray:
    exact = numbers(delay) / step
    whole = np.rint(exact)
    if not np.all(np.abs(exact - whole) <= 1e-4) or np.any(whole < 0):
        raise ConfigError(
            f"NIR node {name!r}: a delay of {numbers(delay)[np.argmax(np.abs(exact - whole))]:g} is no whole number of "
            f"steps of {step:g}; choose another dt"
        )
    return whole.astype(np.int64)
