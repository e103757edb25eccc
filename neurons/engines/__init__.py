"""The engines: what runs step programs over time. All give the spikes and the gradients of ``eager``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn.functional import linear

from ...errors import ConfigError, EngineError
from .eager import run_eager
from .stage import FUSED_DTYPES, WORTH_SPARSE, Cell, Link, Trace, repeated
from .taps import Taps, delayed_product, is_silent

ENGINES = ("auto", "eager", "numba", "triton", "triton-bf16")
WORTH_COMPILING = 2**17
"""Neurons times samples times steps from which ``auto`` takes a fused engine: below, eager is done before the kernel
would be compiled or read from the disk."""
STEPS_OF_DELAY = 12
"""Steps that a delay in a loop can have that cost eager as much again as the loop without delays."""

__all__ = [
    "ENGINES",
    "Cell",
    "Link",
    "Taps",
    "Trace",
    "available_engines",
    "check_engine",
    "is_silent",
    "repeated",
    "run_eager",
    "run_stage",
    "sequence_delayed",
    "sequence_product",
]


def check_engine(engine: str) -> str:
    """``engine`` itself. Raises :class:`ConfigError` for one that does not exist."""
    if engine not in ENGINES:
        raise ConfigError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    return engine


def available_engines() -> dict[str, str]:
    """For each engine "" where this machine can run it, else the reason why not."""
    from .triton_gpu import unavailable

    numba = "" if find_spec("numba") else "numba is not installed"
    return {"eager": "", "numba": numba, "triton": unavailable(), "triton-bf16": unavailable()}


def _choose(engine: str, cells: Sequence[Cell], currents: Mapping[str, Tensor], links: Sequence[Link] = ()) -> str:
    like = next(iter(currents.values()))
    dtype = like.dtype
    for value in (v for cell in cells for v in cell.values.values()):
        dtype = torch.promote_types(dtype, value.dtype)  # autocast may have computed the current in a narrower one
    if engine == "auto":
        # eager goes through every step that a delay can have, which takes as much longer (measured)
        span = max((t.high - t.low for link in links for t in link.taps), default=0)
        work = sum(c.numel() for c in currents.values()) * (1 + span // STEPS_OF_DELAY)
        if like.device.type == "cpu" and dtype in FUSED_DTYPES and work >= WORTH_COMPILING:
            return "numba"
        return "eager"  # on a GPU too: no GPU has run the triton engine yet, so it has to be asked for
    if engine == "numba":
        if like.device.type != "cpu":
            raise EngineError(
                f"engine 'numba' runs on the CPU, but the network's tensors are on {like.device}; move them with "
                "net.cpu(), or choose engine 'auto'"
            )
        if dtype not in FUSED_DTYPES:
            raise EngineError(f"engine 'numba' takes float32 or float64, got {dtype}; choose engine 'eager'")
    if engine.startswith("triton"):
        from .triton_gpu import check_tensors

        check_tensors(engine, like.device, dtype)
    return engine


def sequence_product(engine: str, values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``values @ weight^T + bias`` over a whole sequence, [T, B, N] of [T, B, K]; by the spikes where they are few and
    the engine is one for the CPU.
    """
    work = values.numel() * len(weight)
    if engine not in ("auto", "numba") or values.device.type != "cpu" or work < WORTH_SPARSE:
        return linear(values, weight, bias)
    from .sparse import sparse_linear

    return sparse_linear(values, weight, bias)


def sequence_delayed(
    engine: str,
    sent: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    taps: Sequence[Taps],
    past: Tensor | None = None,
) -> Tensor:
    """The current [T, B, N_target] over a connection with ``taps`` of ``sent`` [T, B, N_source] and, if anything was
    sent before, ``past`` [D, B, N_source], D at least the longest delay.
    """
    span = sum(t.high - t.low for t in taps) + 1
    worth = sent.numel() * len(weight) * span >= WORTH_SPARSE
    if engine not in ("auto", "numba") or sent.device.type != "cpu" or not worth:
        return delayed_product(sent, weight, bias, taps, past)
    from .delayed import sparse_delayed

    return sparse_delayed(sent, weight, bias, taps, past)


def run_stage(
    engine: str,
    cells: Sequence[Cell],
    links: Sequence[Link],
    currents: Mapping[str, Tensor],
    states: Mapping[str, Mapping[str, Tensor]],
    history: Mapping[str, Tensor],
    keep_states: bool = False,
) -> dict[str, Trace]:
    """Run a stage with an engine of :data:`ENGINES`; arguments and result as for :func:`run_eager`.

    Raises:
        EngineError: if the engine cannot run these tensors.
    """
    chosen = _choose(check_engine(engine), cells, currents, links)
    if chosen != "numba":
        links = [link.whole() for link in links]
    if chosen == "eager":
        return run_eager(cells, links, currents, states, history, keep_states)
    from .fused import run_fused

    return run_fused(chosen, cells, links, currents, states, history, keep_states)
