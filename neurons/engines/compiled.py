"""Compiling with numba, cached on disk where that is possible and never depending on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def kernel(distinct: bool = False, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """``numba.njit(nogil=True)``, cached beside the source or in the user's cache folder; where neither can be
    written, compiled anew in each process.

    With ``distinct`` no two array arguments share memory, of which one is written. A step of many arrays is then
    vectorised, which the compiler else does not dare.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            compiled = numba.njit(nogil=True, cache=True, **options)(function)
        except RuntimeError:  # numba found no folder to cache in
            compiled = numba.njit(nogil=True, **options)(function)
        if distinct:
            promise_distinct(compiled)
        return compiled

    return decorate


def promise_distinct(dispatcher: Any) -> None:
    """Set numba's flag ``noalias``, which it has but no option of ``njit`` reaches; where it cannot be set, the loop is
    only slower.
    """

    def customize(flags: Any) -> Any:
        flags.noalias = True
        return flags

    compiler: Any = getattr(dispatcher, "_compiler", None)
    if hasattr(compiler, "_customize_flags"):
        compiler._customize_flags = customize
