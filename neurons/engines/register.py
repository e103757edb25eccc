"""Registering our functions as torch operators, ``torch.ops.ranvier.*``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_LIBRARY = torch.library.Library("ranvier", "FRAGMENT")


def operator(
    schema: str,
    fake: Callable[..., Any],
    backward: Callable[..., Any] | None = None,
    setup_context: Callable[..., Any] | None = None,
    autocast: tuple[str, ...] = (),
) -> Callable[[Callable[..., Any]], Any]:
    """A decorator that makes a function the operator of ``schema``, such as ``name(Tensor x) -> Tensor``.

    ``torch.library.custom_op`` does the same, but imports torch's compiler, a second of work, when it is first called.

    Args:
        schema: names the operator, its arguments and results, none of which may share memory.
        fake: gives results of the right shape, for tracing.
        backward, setup_context: as for ``torch.library.register_autograd``.
        autocast: devices on which the arguments become float32 under autocast.
    """
    name = schema.partition("(")[0]

    def register(function: Callable[..., Any]) -> Any:
        _LIBRARY.define(schema, tags=torch.Tag.pt2_compliant_tag)
        _LIBRARY.impl(name, function, "CompositeExplicitAutograd")
        qualified = f"ranvier::{name}"
        torch.library.register_fake(qualified, fake)
        if backward is not None:
            torch.library.register_autograd(qualified, backward, setup_context=setup_context)
        for device in autocast:
            torch.library.register_autocast(qualified, device, torch.float32)
        return getattr(torch.ops.ranvier, name).default

    return register
