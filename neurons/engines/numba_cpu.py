"""The numba engine: printed kernels compiled once per kind of stage, kept on disk, run by threads over samples."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import numpy as np
import torch
from numba.core.dispatcher import Dispatcher
from torch import Tensor

from ...files import atomic_path, cache_folder
from . import compiled, products, rings
from .numba_source import backward_arguments, forward_arguments, numba_source
from .plan import Plan, read_plan
from .sparse import array
from .stage import FUSED_DTYPES
from .threads import run_tasks

MOST_ROWS = 32
"""Samples (times steps of a block) that one task works on at a time; more would fall out of the cache."""
MOST_WITH_RINGS = 8
"""The same where every pair has delays of its own, since each sample has a ring of what is yet to arrive."""


# -- modules ----------------------------------------------------------------------------------------

_LOCK = threading.RLock()
_TEMPORARY: list[tempfile.TemporaryDirectory[str]] = []


@lru_cache(maxsize=256)
def load(source: str) -> ModuleType:
    """The module of a printed source: from the cache, written there if it is missing or differs, or, where the cache
    cannot be written, from a temporary folder that goes when the process ends.
    """
    # numba looks at the printed file alone to see whether what it compiled is still good, but the products are in it
    source = f"{source}\n# {_fingerprint()}\n"
    name = f"ranvier_kernel_{hashlib.sha256(source.encode()).hexdigest()[:20]}"
    try:
        return _imported(name, _written(cache_folder() / "kernels" / f"{name}.py", source))
    except OSError:
        if not _TEMPORARY:
            _TEMPORARY.append(tempfile.TemporaryDirectory(prefix="ranvier-kernels-", ignore_cleanup_errors=True))
        return _imported(name, _written(Path(_TEMPORARY[0].name) / f"{name}.py", source))


@lru_cache(maxsize=1)
def _fingerprint() -> str:
    helpers = [Path(str(m.__file__)) for m in (products, rings, compiled)]
    return f"helpers {hashlib.sha256(b''.join(p.read_bytes() for p in helpers)).hexdigest()}, numba {numba.__version__}"


def _written(path: Path, source: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_bytes() != source.encode():
        with atomic_path(path) as new:
            new.write_text(source)
    return path


def _imported(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # numba looks a kernel's module up by its name
    spec.loader.exec_module(module)
    return module


_COMPILED: set[tuple[str, str]] = set()


def _call(source: str, name: str, tasks: Sequence[Sequence[Any]]) -> None:
    """Call a kernel for each task, in threads. The first call of a process compiles it or reads it from the cache."""
    rest = list(tasks)
    if (source, name) not in _COMPILED:
        with _LOCK:
            first = rest.pop(0)
            try:
                getattr(load(source), name)(*first)
            except Exception:  # a damaged cache fails in as many ways as there are bytes in it
                _forget(source)
                getattr(load(source), name)(*first)
            _COMPILED.add((source, name))
    if rest:
        run_tasks(getattr(load(source), name), rest)


def _forget(source: str) -> None:
    """Delete what numba has on disk for a printed module and its helpers, and import the module anew."""
    module = load(source)
    functions = [f for m in (module, products, rings) for f in vars(m).values() if isinstance(f, Dispatcher)]
    for function in functions:
        folder, stem = function.stats.cache_path, Path(function.py_func.__code__.co_filename).stem
        for path in Path(folder).glob(f"{stem}.*.nb[ic]") if folder else ():
            path.unlink(missing_ok=True)
    load.cache_clear()


# -- running ----------------------------------------------------------------------------------------


def _ranges(plan: Plan, batch: int) -> list[tuple[int, int]]:
    """Equal ranges of samples, one or more for each of torch's threads."""
    threads = max(1, min(torch.get_num_threads(), batch))
    most = MOST_WITH_RINGS if any(k.pairs for k in plan.links) else MOST_ROWS
    tasks = threads * math.ceil(batch / (threads * most))
    size = math.ceil(batch / min(tasks, batch))
    return [(first, min(first + size, batch)) for first in range(0, batch, size)]


def _tile(plan: Plan, ranges: Sequence[tuple[int, int]]) -> int:
    return max(1, min(plan.block, MOST_ROWS // (ranges[0][1] - ranges[0][0])))


def _source(plan: Plan, dtype: torch.dtype) -> str:
    return _printed(plan.text, FUSED_DTYPES[dtype])


@lru_cache(maxsize=256)
def _printed(plan: str, dtype: str) -> str:
    return numba_source(read_plan(plan), dtype)


def _arrays(plan: Plan, tensors: Mapping[str, Tensor], steps: int) -> dict[str, np.ndarray]:
    """By the names in printed source, with weights in the layouts that the kernels go through, and delays that are
    longer than the ``steps`` cut, so that rings need not be longer either.
    """
    found = {n.replace(".", "_"): array(t) for n, t in tensors.items()}
    for j, link in enumerate(plan.links):
        for name in ("offsets", "lags"):
            if f"{name}{j}" in tensors:
                found[f"{name}{j}"] = array(tensors[f"{name}{j}"].clamp(max=steps))
        if link.pairs:  # [N_source, M, N_target]: what a spike brings lies together
            found[f"spread{j}"] = array(tensors[f"amounts{j}"].permute(2, 0, 1))
            ahead = torch.from_numpy(found[f"offsets{j}"]).permute(2, 0, 1)
            found[f"ahead{j}"] = array(ahead.int()).view(np.uint32)
        else:
            found[f"transposed{j}"] = array(tensors[f"weight{j}"].t())
    return found


def forward(plan: Plan, tensors: Mapping[str, Tensor], results: Mapping[str, Tensor]) -> None:
    """Fill ``results``, contiguous and on the CPU, from ``tensors``; both by the names of :class:`Plan`."""
    batch = tensors["current0"].shape[1]
    ranges = _ranges(plan, batch)
    given = _arrays(plan, {**tensors, **results}, len(tensors["current0"]))
    arrays = [given[n] for n in forward_arguments(plan)]
    tile = _tile(plan, ranges)
    _call(_source(plan, tensors["current0"].dtype), "forward", [(a, b, tile, *arrays) for a, b in ranges])


def backward(plan: Plan, tensors: Mapping[str, Tensor], grads: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gradients by name: ``d_current0`` [T, B, N], ``d_state0.v`` [B, N], ``d_value0.x`` [N], ``d_gains0``,
    ``d_shares0``; what comes back to the weights through dendritic delays, ``d_product0`` [T, B, N_target]; and the
    outputs that were not kept, ``output0`` [T, B, N].

    ``tensors`` are those of :attr:`Plan.kept`; ``grads`` those of the outputs and states, ``d_output0``,
    ``d_states0.v``.
    """
    like = grads["d_output0"]
    batch = like.shape[1]
    ranges = _ranges(plan, batch)
    out: dict[str, Tensor] = {}
    partial: dict[str, Tensor] = {}
    for i, cell in enumerate(plan.cells):
        shape = grads[f"d_output{i}"].shape
        out[f"d_current{i}"] = like.new_empty(shape)
        out |= {f"d_state{i}.{s}": like.new_empty(shape[1:]) for s in cell.program.states}
        if cell.derivative.rebuilt and plan.sends(i):
            out[f"output{i}"] = like.new_empty(shape)
        partial |= {f"d_value{i}.{p}": like.new_zeros(len(ranges), shape[2]) for p in cell.learned}
    for j, link in enumerate(plan.links):
        if link.dendritic:
            out[f"d_product{j}"] = torch.empty_like(out[f"d_current{link.target}"])
        for name, wanted in (("gains", link.timed), ("shares", link.retimed)):
            if wanted:
                partial[f"d_{name}{j}"] = like.new_zeros(len(ranges), *tensors[f"{name}{j}"].shape)
    given = _arrays(plan, {**tensors, **grads, **out}, len(like))
    sums = {n.replace(".", "_"): array(t) for n, t in partial.items()}
    tasks = [
        (a, b, _tile(plan, ranges), *(sums[n][i] if n in sums else given[n] for n in backward_arguments(plan)))
        for i, (a, b) in enumerate(ranges)
    ]
    _call(_source(plan, like.dtype), "backward", tasks)
    return out | {n: t.sum(0) for n, t in partial.items()}
