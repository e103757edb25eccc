"""What the library adds to a traced step: reset, delayed reset, refractoriness and a detached reset, for every neuron
alike.

All are arithmetic on the program, so every engine and every exporter gets them for nothing and their gradients live.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigError, TraceError
from .program import Arg, Builder, prune

RESETS = ("subtract", "to_value", "none")
SPIKE_BEFORE = "spike_before"
REFRACTORY_LEFT = "refractory_left"
REFRACTORY_STEPS = "refractory_steps"


@dataclass(frozen=True)
class ResetRule:
    """How a population resets.

    ``state`` is the state that is reset, ``amount`` the parameter subtracted (``subtract``) or taken (``to_value``).
    ``delayed`` resets one step later, after that step's update and before its spike (snnTorch's convention). ``detach``
    cuts the gradient through the spike of the reset alone. ``refractory`` adds the counter: while it is above 0 no
    spike is fired and ``state`` holds.
    """

    kind: str
    state: str | None
    amount: str
    delayed: bool = False
    detach: bool = False
    refractory: bool = False

    def __post_init__(self) -> None:
        if self.kind not in RESETS:
            raise ConfigError(f"reset must be one of {', '.join(RESETS)}, got {self.kind!r}")

    @property
    def extra_states(self) -> dict[str, Arg]:
        """The states this rule adds, with their initial values."""
        states: dict[str, Arg] = {}
        if self.delayed and self.kind != "none":
            states[SPIKE_BEFORE] = 0.0
        if self.refractory:
            states[REFRACTORY_LEFT] = 0.0
        return states

    def arithmetic(self, b: Builder, v: Arg, spike: Arg) -> Arg:
        """``v - spike amount`` or ``v (1 - spike) + amount spike``; the second gives the amount exactly where there was
        a spike.
        """
        if self.kind == "none":
            return v
        if self.detach:
            spike = b.emit("detach", spike)
        if self.kind == "subtract":
            return b.emit("sub", v, b.emit("mul", spike, self.amount), hint=f"{self.state}_after")
        kept = b.emit("mul", v, b.emit("sub", 1.0, spike, hint="silent"))
        return b.emit("add", kept, b.emit("mul", spike, self.amount), hint=f"{self.state}_after")


def complete(
    raw: Builder, next_state: dict[str, Arg], output: Arg, rule: ResetRule, reserved: tuple[str, ...], where: str
) -> tuple[Builder, dict[str, Arg], Arg]:
    """Rewrite a traced step under ``rule``; returns the new builder, next states (with those the rule adds) and output.

    Raises:
        TraceError: for a step that fires or resets more than once, whose ``reset()`` has no effect, or whose reset
            state cannot be told apart.
        ConfigError: for refractoriness of a neuron that never spikes.
    """
    fires = [op.name for op in raw.ops if op.kind == "fire"]
    marks = [op for op in raw.ops if op.kind == "reset"]
    if len(fires) > 1 or len(marks) > 1:
        raise TraceError(
            f"{where}: a step may call fire() once and reset() at most once; found {len(fires)} and {len(marks)}"
        )
    if marks and rule.state is None:
        raise TraceError(f"{where}: reset() is called but no State is declared with reset=True")
    if marks and rule.state is not None and marks[0] not in prune(raw.ops, [next_state[rule.state]]):
        raise TraceError(
            f"{where}: the value that reset() returns must reach the next {rule.state}, as in {rule.state} = "
            f"reset({rule.state}, spike)"
        )
    if rule.refractory and not fires:
        raise ConfigError(f"{where}: refractory is set but the step never fires")
    resets = rule.state is not None and bool(fires)
    updated = (marks[0].args[0] if marks else next_state[rule.state]) if resets and rule.state is not None else None
    if resets and (rule.delayed or rule.refractory):
        shared = updated in [v for s, v in next_state.items() if s != rule.state]
        if shared or updated not in [op.name for op in raw.ops]:
            raise TraceError(
                f"{where}: with a delayed reset or refractoriness the next {rule.state} must be computed in the step "
                "and be no other state's value too"
            )

    b = Builder(reserved)
    names: dict[Arg, Arg] = {}

    def now(arg: Arg) -> Arg:
        return names.get(arg, arg) if isinstance(arg, str) else arg

    busy = b.emit("gt", REFRACTORY_LEFT, 0.0, hint="busy") if rule.refractory else None
    ready = b.emit("sub", 1.0, busy, hint="ready") if busy is not None else None

    def after_update(value: Arg) -> Arg:
        if busy is not None and rule.state is not None:
            value = b.emit("where", busy, rule.state, value, hint="v_held")
        if rule.delayed:
            value = rule.arithmetic(b, value, SPIKE_BEFORE)
        return value

    for op in raw.ops:
        args = tuple(now(a) for a in op.args)
        if op.kind == "reset":
            names[op.name] = args[0] if rule.delayed else rule.arithmetic(b, args[0], args[1])
            continue
        hint = "spike" if op.kind == "fire" else f"{rule.state}_new" if op.name == updated else op.name
        value = b.emit(op.kind, *args, hint=hint)
        if op.kind == "fire" and ready is not None:
            value = b.emit("mul", value, ready, hint="spike_ready")
        if op.name == updated:
            value = after_update(value)
        names[op.name] = value
    result = {s: now(v) for s, v in next_state.items()}
    if resets and rule.state is not None and not marks and not rule.delayed:
        result[rule.state] = rule.arithmetic(b, result[rule.state], now(fires[0]))
    if rule.delayed and rule.kind != "none":
        result[SPIKE_BEFORE] = now(fires[0]) if fires else 0.0
    if rule.refractory:
        left = b.emit("max", b.emit("sub", REFRACTORY_LEFT, 1.0), 0.0)
        result[REFRACTORY_LEFT] = b.emit("add", left, b.emit("mul", now(fires[0]), REFRACTORY_STEPS), hint="left_next")
    return b, result, now(output)
