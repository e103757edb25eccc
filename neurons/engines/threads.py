"""Running compiled functions side by side, in the threads that torch already has.

After a product of its own, torch's OpenMP threads wait for the next one by spinning. Threads beside them would share
the cores with that (measured: a time loop takes twice as long after a matrix product); so the tasks are given to them.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

_BODY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@lru_cache(maxsize=1)
def _openmp() -> Any:
    """``GOMP_parallel`` of the OpenMP library that torch has loaded, or None where there is none to be found."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return None
    loaded = {line.split()[-1] for line in maps.splitlines() if "/libgomp" in line}
    own = sorted(loaded, key=lambda path: f"{os.sep}torch{os.sep}" not in path)  # torch's first
    try:
        start = ctypes.CDLL(own[0]).GOMP_parallel
    except (IndexError, OSError, AttributeError):
        return None
    start.argtypes, start.restype = [_BODY, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None
    return start


@lru_cache(maxsize=8)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads of our own for this ``process``: a forked child has none of its parent's."""
    return ThreadPoolExecutor(threads, thread_name_prefix="ranvier")


def run_tasks(function: Callable[..., Any], tasks: Sequence[Sequence[Any]]) -> None:
    """Call ``function``, which releases the interpreter's lock, once for each task, in torch's number of threads.

    The first error of a task is raised when all threads have ended.
    """
    threads = min(torch.get_num_threads(), len(tasks))
    if threads <= 1:
        for task in tasks:
            function(*task)
        return
    left, lock = iter(tasks), threading.Lock()
    errors: list[BaseException] = []

    def work(_: Any = None) -> None:
        while not errors:
            with lock:
                task = next(left, None)
            if task is None:
                return
            try:
                function(*task)
            except BaseException as error:  # a callback from C must not raise
                errors.append(error)

    start = _openmp()
    if start is not None:
        start(_BODY(work), None, threads, 0)
    else:
        waiting = [_pool(os.getpid(), threads - 1).submit(work) for _ in range(threads - 1)]
        work()
        for future in waiting:
            future.result()
    if errors:
        raise errors[0]
