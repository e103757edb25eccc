"""The neuron contract: parameters, states, ``derive`` once per forward and a pure elementwise ``step``."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ConfigError, TraceError
from .program import Arg, StepProgram, prune
from .surrogate import FastSigmoid, Surrogate
from .trace import trace_step
from .transforms import REFRACTORY_STEPS, RESETS, ResetRule, complete

Value = float | Iterable[float] | np.ndarray | Tensor
INTEGRATORS = ("exact", "euler")


@dataclass
class Parameter:
    """Declares a neuron parameter: its default, unit and range. Scalar or per neuron, learnable or not.

    A learnable parameter is optimised as its logarithm if ``positive``, or as a logit between ``bounds``, so that no
    step of an optimiser can leave the range. Reading ``neuron.tau_mem`` gives its value as a tensor of shape [1] or
    [N].
    """

    default: float
    unit: str = ""
    positive: bool = False
    bounds: tuple[float, float] | None = None
    name: str = field(default="", init=False)

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, neuron: Neuron | None, owner: type | None = None) -> Any:
        if neuron is None:
            return self
        raw: Tensor = getattr(neuron, f"raw_{self.name}")
        return self.value(raw) if self.name in neuron.learned else raw

    def __set__(self, neuron: Neuron, value: Value) -> None:
        raw: Tensor = getattr(neuron, f"raw_{self.name}")
        owner, learned = type(neuron).__name__, self.name in neuron.learned
        new = self.checked(value, neuron.size, owner, learned)
        if new.numel() > raw.numel():
            raise ConfigError(
                f"{owner}.{self.name} holds one number for all neurons; make it per_neuron to set {new.numel()} values"
            )
        with torch.no_grad():
            raw.copy_(self.raw(new) if learned else new)

    def checked(self, value: Value, size: int, owner: str, learned: bool = False) -> Tensor:
        """``value`` as a float64 tensor [1] or [size]. Raises :class:`ConfigError` for a wrong type, shape or range."""
        try:
            tensor = torch.as_tensor(
                np.array(
                    value.detach().cpu().double().numpy() if isinstance(value, Tensor) else value, dtype=np.float64
                )
            )
        except (TypeError, ValueError, OverflowError) as error:
            raise ConfigError(
                f"{owner}.{self.name} must be a number or have one value per neuron ({size}), got {value!r}"
            ) from error
        tensor = tensor.reshape(1) if tensor.ndim == 0 else tensor
        if tensor.shape not in ((1,), (size,)):
            raise ConfigError(
                f"{owner}.{self.name} must be a number or have one value per neuron ({size}), got shape "
                f"{tuple(tensor.shape)}"
            )
        low, high = self.bounds or ((0.0, math.inf) if self.positive else (-math.inf, math.inf))
        bad = torch.isnan(tensor) | (tensor < low) | (tensor > high) | (self.positive & (tensor <= 0))
        if bad.any():
            allowed = f"between {low:g} and {high:g}" if self.bounds else ("positive" if self.positive else "a number")
            raise ConfigError(
                f"{owner}.{self.name} must be {allowed}{f' ({self.unit})' if self.unit else ''}, got "
                f"{tensor[bad][0].item():g}"
            )
        if learned and torch.isinf(tensor).any():
            raise ConfigError(
                f"{owner}.{self.name} is infinite and cannot be learned; give it a finite value or leave it out of "
                "learn"
            )
        return tensor

    def raw(self, value: Tensor) -> Tensor:
        """What the optimiser sees for ``value``. One on (or at) a bound moves inside by a millionth of the range."""
        if self.bounds is not None:
            low, high = self.bounds
            return torch.logit((value - low) / (high - low), eps=1e-6)
        return torch.log(value) if self.positive else value

    def value(self, raw: Tensor) -> Tensor:
        """The inverse of :meth:`raw`; gradients pass."""
        if self.bounds is not None:
            low, high = self.bounds
            return low + (high - low) * torch.sigmoid(raw)
        return torch.exp(raw) if self.positive else raw


def _chosen(names: Iterable[str] | bool, declared: Mapping[str, Parameter]) -> list[str]:
    """The parameters meant by ``learn=`` or ``per_neuron=``: True is all, a plain string one."""
    if isinstance(names, bool):
        return list(declared) if names else []
    return [names] if isinstance(names, str) else list(names)


@dataclass(frozen=True)
class State:
    """Declares a state: its value before the first step (a number, or the name of a parameter or derived value), its
    unit, and whether the library's reset and refractoriness act on it.
    """

    initial: float | str = 0.0
    unit: str = ""
    reset: bool = False


class Neuron(nn.Module):
    """A population's neuron model. Subclasses declare :class:`Parameter` and :class:`State` attributes and define
    ``step``.

    ``step(self, <states by name>, current, p)`` returns the next states in the order of its arguments and then the
    output. ``current`` is the input of this step, ``p`` holds the parameters and what ``derive(dt)`` returned. It must
    be elementwise: it is traced once into a :class:`StepProgram`, which is what runs and what is exported.

    Args:
        size: number of neurons N.
        reset: ``subtract`` (the threshold), ``to_value`` (``v_reset``) or ``none``; the default is the model's. It acts
            on the State declared with ``reset=True``.
        reset_delayed: reset one step later, after that step's update and before its spike (snnTorch's convention).
        detach_reset: no gradient through the reset's spike.
        refractory: time in ms during which, after a spike, ``v`` holds and no spike is fired; rounded to the nearest
            step, half a step up.
        surrogate: the derivative of ``fire`` in the backward pass.
        integrator: ``exact`` (exponential) or ``euler``.
        learn: names of the parameters to learn, or True for all.
        per_neuron: names of parameters to hold one value per neuron even if given as one number, or True for all.
        **values: values of the model's parameters, scalar or [N]. They are held in torch's default dtype; after
            ``neuron.double()`` set those again that must be exact in float64.

    Raises:
        ConfigError: for an unknown parameter, a value out of range or of the wrong shape, or a setting that the model
            does not have.
    """

    v_reset = Parameter(0.0)

    output: ClassVar[str] = "binary"
    default_reset: ClassVar[str] = "subtract"
    reset_amount: ClassVar[Mapping[str, str]] = {"subtract": "threshold", "to_value": "v_reset"}
    integrators: ClassVar[tuple[str, ...]] = INTEGRATORS

    def __init__(
        self,
        size: int,
        *,
        reset: str | None = None,
        reset_delayed: bool = False,
        detach_reset: bool = False,
        refractory: float = 0.0,
        surrogate: Surrogate | None = None,
        integrator: str | None = None,
        learn: Iterable[str] | bool = (),
        per_neuron: Iterable[str] | bool = (),
        **values: Value,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        if not isinstance(size, Integral) or isinstance(size, bool) or size < 1:
            raise ConfigError(f"{owner}: size must be a positive whole number of neurons, got {size!r}")
        self.size = int(size)
        self.integrator = integrator or self.integrators[0]
        if self.integrator not in self.integrators:
            raise ConfigError(f"{owner}: integrator must be one of {', '.join(self.integrators)}, got {integrator!r}")
        if not isinstance(refractory, Real) or not (math.isfinite(refractory) and refractory >= 0):
            raise ConfigError(f"{owner}: refractory must be a time in ms, 0 or more, got {refractory!r}")
        self.refractory = float(refractory)
        self.surrogate = FastSigmoid() if surrogate is None else surrogate
        if not isinstance(self.surrogate, Surrogate):
            raise ConfigError(
                f"{owner}: surrogate must be a Surrogate such as FastSigmoid(width=0.1), got {surrogate!r}"
            )
        declared = self.parameters_declared()
        learned, spread = _chosen(learn, declared), _chosen(per_neuron, declared)
        self.learned = frozenset(learned)
        for name in (*values, *learned, *spread):
            if name not in declared:
                raise ConfigError(f"{owner} has no parameter {name!r}; it has {', '.join(declared)}")
        for name, parameter in declared.items():
            value = parameter.checked(values.get(name, parameter.default), self.size, owner, name in learned)
            value = value.expand(self.size).clone() if name in spread else value
            if name in learned:
                self.register_parameter(f"raw_{name}", nn.Parameter(parameter.raw(value).to(torch.get_default_dtype())))
            else:
                self.register_buffer(f"raw_{name}", value.to(torch.get_default_dtype()))
        resettable = [n for n, s in self.states_declared().items() if s.reset]
        if len(resettable) > 1:
            raise ConfigError(f"{owner}: only one State may have reset=True, found {', '.join(resettable)}")
        if reset not in (None, "none") and not resettable:
            raise ConfigError(f"{owner} declares no State with reset=True, so reset={reset!r} would do nothing")
        if reset is not None and reset not in RESETS:
            raise ConfigError(f"{owner}: reset must be one of {', '.join(RESETS)}, got {reset!r}")
        kind = (reset or self.default_reset) if resettable else "none"
        if kind != "none" and self.reset_amount.get(kind) not in declared:
            lacks = f"needs a parameter {self.reset_amount[kind]!r}" if kind in self.reset_amount else "is not possible"
            raise ConfigError(f"{owner}: reset={kind!r} {lacks}; its parameters are {', '.join(declared)}")
        self.rule = ResetRule(
            kind=kind,
            state=resettable[0] if resettable else None,
            amount=self.reset_amount.get(kind, ""),
            delayed=reset_delayed,
            detach=detach_reset,
            refractory=self.refractory > 0,
        )
        self._programs: dict[tuple[object, ...], StepProgram] = {}

    @classmethod
    def parameters_declared(cls) -> dict[str, Parameter]:
        return {n: a for c in reversed(cls.__mro__) for n, a in vars(c).items() if isinstance(a, Parameter)}

    @classmethod
    def states_declared(cls) -> dict[str, State]:
        return {n: a for c in reversed(cls.__mro__) for n, a in vars(c).items() if isinstance(a, State)}

    def derive(self, dt: float) -> dict[str, Tensor]:
        """Values computed from the parameters once per forward, [1] or [N], in plain torch; they reach ``step`` as
        ``p.<name>``. ``dt`` in ms.
        """
        return {}

    def step(self, *args: Any, **kwargs: Any) -> Any:  # so spelt, type checkers let subclasses name their states
        """The next states and the output of one step; see the class."""
        raise TraceError(f"{type(self).__name__} defines no step(...)")

    def _all_values(self, dt: float) -> dict[str, Tensor]:
        if not (math.isfinite(dt) and dt > 0):
            raise ConfigError(f"dt must be a positive time in ms, got {dt}")
        values: dict[str, Tensor] = {n: getattr(self, n) for n in self.parameters_declared()}
        anchor = next(iter(values.values()))
        for name, value in self.derive(dt).items():
            values[name] = torch.as_tensor(value).to(anchor).reshape(-1)
            if values[name].numel() not in (1, self.size):
                raise ConfigError(
                    f"{type(self).__name__}.derive: {name} must have 1 or {self.size} values, got shape "
                    f"{tuple(torch.as_tensor(value).shape)}"
                )
        if self.rule.refractory:
            steps = math.floor(self.refractory / dt + 0.5 + 1e-9)  # 0.15 / 0.1 is a hair below 1.5
            if steps < 1:
                raise ConfigError(
                    f"{type(self).__name__}: refractory {self.refractory} ms is less than half of dt {dt} ms and "
                    "would do nothing"
                )
            values[REFRACTORY_STEPS] = anchor.new_tensor([float(steps)])
        return values

    def program(self, dt: float = 1.0) -> StepProgram:
        """The traced step with reset and refractoriness in it. ``dt`` in ms only decides how the parameters are
        derived.

        Raises:
            TraceError: naming file and line, for a step that has no program.
        """
        key = (dt, self.integrator, self.surrogate, self.rule)
        if key not in self._programs:
            self._programs[key] = self._trace(dt)
        return self._programs[key]

    def _trace(self, dt: float) -> StepProgram:
        owner, step = type(self).__name__, type(self).step
        if step is Neuron.step:
            raise TraceError(f"{owner} defines no step(self, <states>, current, p)")
        where = f"{owner}.step ({step.__code__.co_filename}:{step.__code__.co_firstlineno})"
        declared = self.states_declared()
        names = list(inspect.signature(self.step).parameters)
        states = tuple(names[:-2])
        if names[-2:] != ["current", "p"] or set(states) != set(declared):
            raise TraceError(
                f"{where} takes ({', '.join(names)}); it must take the declared states ({', '.join(declared)}), then "
                "current and p"
            )
        with torch.no_grad():
            known = list(self._all_values(dt))
        for name in known:
            if name in declared or name == "current":
                raise TraceError(
                    f"{where}: {name!r} is both an argument of the step and a parameter or derived value; rename one"
                )
        raw, next_state, output = trace_step(self.step, states, known, where)
        extra = self.rule.extra_states
        every = (*states, *extra)
        fires = [op.name for op in raw.ops if op.kind == "fire"]
        if (self.output == "binary") != (output in fires):
            found = "the output is not what fire() returned" if self.output == "binary" else "the output is a spike"
            raise TraceError(f"{where}: {owner}.output is {self.output!r}, but {found}")
        builder, result, out = complete(raw, next_state, output, self.rule, (*every, "current", *known), where)
        ops = prune(builder.ops, [*result.values(), out])
        initial: dict[str, Arg] = {n: declared[n].initial for n in states} | extra
        read = {a for op in ops for a in op.args} | {*result.values(), out, *initial.values()}
        return StepProgram(
            states=every,
            params=tuple(n for n in known if n in read),
            ops=ops,
            next_state=result,
            output=out,
            output_kind=self.output,
            initial=initial,
            surrogate=self.surrogate if fires else None,
        )

    def values(self, dt: float = 1.0) -> dict[str, Tensor]:
        """The program's runtime inputs, [1] or [N] each; gradients flow from them to the learnable parameters."""
        values = self._all_values(dt)
        return {n: values[n] for n in self.program(dt).params}

    def extra_repr(self) -> str:
        learned = [n for n in self.parameters_declared() if isinstance(getattr(self, f"raw_{n}"), nn.Parameter)]
        return f"{self.size}, reset={self.rule.kind!r}, integrator={self.integrator!r}, learn={learned}"


class ProgramNeuron(Neuron):
    """A neuron read back from a file: a step program and its values, without the class that made it. For evaluation and
    export.
    """

    output: ClassVar[str] = "binary"

    def __init__(self, size: int, program: StepProgram, values: Mapping[str, Tensor], dt: float, label: str) -> None:
        super().__init__(size, reset="none")
        self.label = label
        self._dt = dt
        self._program = program
        missing = set(program.params) - set(values)
        if missing:
            raise ConfigError(f"{label}: the file lacks values for {', '.join(sorted(missing))}")
        for name in program.params:
            value = torch.as_tensor(values[name])
            if value.shape not in ((1,), (self.size,)) or not value.is_floating_point() or torch.isnan(value).any():
                raise ConfigError(
                    f"{label}: {name} must be 1 or {self.size} floating-point numbers, got {value.dtype} "
                    f"{tuple(value.shape)}"
                )
            self.register_buffer(f"value_{name}", value.clone())

    def program(self, dt: float = 1.0) -> StepProgram:
        if dt != self._dt:
            raise ConfigError(f"{self.label} was saved for dt {self._dt} ms and cannot run at {dt} ms")
        return self._program

    def values(self, dt: float = 1.0) -> dict[str, Tensor]:
        return {n: getattr(self, f"value_{n}") for n in self.program(dt).params}
