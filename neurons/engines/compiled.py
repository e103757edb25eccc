"""Compiling with numba, cached on disk where that is possible and never depending on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """``numba.njit(nogil=True)``, cached beside the source or in the user's cache folder; where neither can be
    written, compiled anew in each process.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(nogil=True, cache=True, **options)(function)
        except RuntimeError:  # numba found no folder to cache in
            return numba.njit(nogil=True, **options)(function)

    return decorate
