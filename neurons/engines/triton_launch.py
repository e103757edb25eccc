"""Loading printed kernels and launching kernels, on a GPU or in triton's interpreter."""

from __future__ import annotations

import hashlib
import linecache
import os
from collections.abc import Sequence
from contextlib import nullcontext
from functools import lru_cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

OPTIONS: dict[str, Any] = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": False}
"""For every kernel: it rounds as torch does, without fusing products and sums. Loops that fetch ahead say so."""


def interpreted() -> bool:
    """Whether triton interprets kernels, on the CPU too, instead of compiling them. It looks at this when imported."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")


@lru_cache(maxsize=256)
def load(source: str) -> ModuleType:
    """The module of a printed source. Triton reads a kernel's source as Python shows it and caches what it compiles."""
    name = f"ranvier_triton_{hashlib.sha256(source.encode()).hexdigest()[:20]}"
    path = f"<{name}>"
    linecache.cache[path] = (len(source), None, source.splitlines(keepends=True), path)
    module = ModuleType(name)
    exec(compile(source, path, "exec"), vars(module))  # noqa: S102 - printed by us from checked programs
    return module


def launch(
    kernel: Any, grid: int | tuple[int, ...], numbers: Sequence[int], tensors: Sequence[Tensor], **options: Any
) -> None:
    """Run ``kernel`` on as many programs as ``grid`` says, unless there is nothing to do."""
    programs = (grid,) if isinstance(grid, int) else grid
    if not all(programs) or not all(t.numel() for t in tensors):
        return
    device = tensors[0].device
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        kernel[programs](*numbers, *tensors, **{**OPTIONS, **options})


def within(offsets: Tensor, steps: int) -> Tensor:
    """Delays as kernels take them: in int32; longer ones than the sequence bring nothing, whatever they are."""
    return offsets.clamp(max=steps).int().contiguous()
