"""What a forward pass is called with, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from ..errors import ConfigError, DataError

NetworkState = dict[str, dict[str, Tensor]]
"""Per population: its states [B, N] and, where a connection from it has a delay, ``history`` [D, B, N], its last D
outputs.
"""


def checked_inputs(x: Tensor | Mapping[str, Tensor], sizes: Mapping[str, int], dtype: torch.dtype) -> dict[str, Tensor]:
    """The sequences [T, B, N] by the names of the inputs, whose ``sizes`` N are given, as ``dtype``.

    Raises:
        DataError: for names, types or shapes other than the network's, and numbers that are not finite.
    """
    given = x if isinstance(x, Mapping) else {next(iter(sizes)): x}
    if set(given) != set(sizes):
        raise DataError(f"the network has the inputs {', '.join(sizes)}; got {', '.join(map(str, given))}")
    sequences: dict[str, Tensor] = {}
    for name, sequence in given.items():
        size = sizes[name]
        if not isinstance(sequence, Tensor) or sequence.is_complex():
            raise DataError(
                f"input {name!r} must be a tensor of numbers, got {getattr(sequence, 'dtype', type(sequence).__name__)}"
            )
        if sequence.ndim != 3 or sequence.shape[2] != size or 0 in sequence.shape:
            raise DataError(
                f"input {name!r} must be [T, B, {size}] with T and B at least 1, got {tuple(sequence.shape)}"
            )
        # a finite sum has finite terms; only if it is not are they looked at one by one
        if sequence.is_floating_point() and not sequence.sum().isfinite() and not torch.isfinite(sequence).all():
            step, sample, channel = (int(i) for i in (~torch.isfinite(sequence)).nonzero()[0])
            raise DataError(f"input {name!r} is not finite at step {step}, sample {sample}, channel {channel}")
        sequences[name] = sequence.to(dtype)
    if len({s.shape[:2] for s in sequences.values()}) > 1:
        raise DataError(f"inputs differ in steps or batch: { {n: tuple(s.shape[:2]) for n, s in sequences.items()} }")
    return sequences


def checked_lengths(
    lengths: Tensor | None, steps: int, batch: int, device: torch.device
) -> tuple[Tensor | None, Tensor | None]:
    """``lengths`` [B] and which steps they leave unpadded, [T, B]; None where all are.

    Raises:
        DataError: for lengths that are not B whole numbers between 1 and T.
    """
    if lengths is None:
        return None, None
    try:
        given = torch.as_tensor(lengths, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"lengths must be {batch} whole numbers, got {lengths!r}") from error
    whole = not (given.is_floating_point() or given.is_complex() or given.dtype == torch.bool)
    if not whole or given.shape != (batch,) or int(given.min()) < 1 or int(given.max()) > steps:
        raise DataError(
            f"lengths must be {batch} whole numbers between 1 and T = {steps}, got {given.flatten().tolist()[:8]}"
        )
    return given.long(), torch.arange(steps, device=device).unsqueeze(1) < given


def check_state(state: NetworkState, expected: NetworkState) -> None:
    """Raises :class:`DataError` for a state of another network or batch than the ``expected`` one's."""
    try:
        shapes, wanted = (
            {n: {k: tuple(v.shape) for k, v in own.items()} for n, own in s.items()} for s in (state, expected)
        )
    except AttributeError as error:
        raise DataError(f"state must be what an earlier run returned as its state ({error})") from error
    for name in (*wanted, *shapes):
        if shapes.get(name) != wanted.get(name):
            raise DataError(
                f"state of {name!r} must hold {wanted.get(name, {})}, got {shapes.get(name, {})}; it belongs to "
                "another network or batch size"
            )


def check_record(asked: Iterable[object], nodes: Iterable[str], states: Mapping[str, Sequence[str]]) -> None:
    """Raises :class:`ConfigError` for something else than a node or ``population.state``; ``states`` are those of each
    population.
    """
    known = set(nodes)
    for item in asked:
        if not isinstance(item, str):
            raise ConfigError(f"cannot record {item!r}; give the name of a population, or population.state")
        name, _, which = item.partition(".")
        if name not in known or (which and which not in states.get(name, ())):
            raise ConfigError(f"cannot record {item!r}; populations: {', '.join(states)}; a state is population.state")
