"""Spyx's RLIF, timed in its own environment (JAX). benchmarks.contestants starts this file and talks to it in JSON.

RLIF is LIF with its reset one step later; its recurrent matrix is [source, target]. The input product is hoisted over
all T, the loop is ``spyx.nn.run`` (a ``lax.scan``), everything is one jitted function, and the clock stops when its
results are there (``block_until_ready``).
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))  # last: the repository has a folder `datasets`
# isort: split
from benchmarks.contestants import LARGE, PROBE_STEPS, Skipped, timed, too_slow
from benchmarks.workload import DECAY, SLOPE, THRESHOLD, Cell, make_workload, tune, tuning_cell

Functions = tuple[Callable[..., Any], Callable[..., Any]]


class Worker:
    def __init__(self) -> None:
        self.jax = importlib.import_module("jax")
        self.spyx = importlib.import_module("spyx")
        self.calls: dict[str, Callable[[], object]] = {}

    def functions(self, size: int) -> Functions:
        """Jitted: spikes from (w_in, w_rec, x), and the gradients of both weights from (w_in, w_rec, x, upstream)."""
        jax, nnx = self.jax, importlib.import_module("flax.nnx")
        nn, axn = importlib.import_module("spyx.nn"), importlib.import_module("spyx.axn")
        layer = nn.RLIF((size,), beta=DECAY, threshold=THRESHOLD, activation=axn.superspike(SLOPE), rngs=nnx.Rngs(0))
        graph, state = nnx.split(layer)

        def spikes(w_in: Any, w_rec: Any, x: Any) -> Any:
            module = nnx.merge(graph, state)
            module.recurrent_w = nnx.Param(w_rec)
            return nn.run(module, x @ w_in)[0]

        def loss(w_in: Any, w_rec: Any, x: Any, upstream: Any) -> Any:
            return jax.numpy.vdot(upstream, spikes(w_in, w_rec, x))

        return jax.jit(spikes), jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))

    def prepare(self, cell: Cell, limit_s: float) -> dict[str, Any]:
        put, ready = self.jax.device_put, self.jax.block_until_ready
        work, small = make_workload(cell), tuning_cell(cell)
        forward, step = self.functions(cell.H)
        w_rec, base, x = put(work.w_rec.T), put(work.w_in.T), put(work.x)
        piece = x[: small.T, : small.B]
        gain = tune(lambda gain: float(forward(base * gain, w_rec, piece).mean()), cell.rate)
        w_in, upstream = base * gain, put(work.upstream)
        if cell.T * cell.B * cell.H > LARGE:
            short = min(PROBE_STEPS, cell.T)
            part = (w_in, w_rec, x[:short], upstream[:short])
            ready(step(*part))
            too_slow(timed(lambda: ready(step(*part)), 1) * cell.T / short, limit_s)
        rate = float(ready(forward(w_in, w_rec, x)).mean())
        ready(step(w_in, w_rec, x, upstream))  # compiles
        self.calls = {
            "forward": lambda: ready(forward(w_in, w_rec, x)),
            "step": lambda: ready(step(w_in, w_rec, x, upstream)),
        }
        names = ("jax", "flax", "spyx")
        return {
            "rate": rate,
            "versions": {name: version(name) for name in names},
        }

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        if question["do"] == "prepare":
            return self.prepare(Cell(**question["cell"]), question["limit_s"])
        if question["do"] == "time":
            return {"seconds": timed(self.calls[question["kind"]], question["number"])}
        self.calls = {}
        return {}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is not an answer
    reason = ""
    try:
        worker = Worker()
    except ImportError as error:
        worker, reason = None, f"{error}; run benchmarks/peers.sh"
    for line in sys.stdin:
        try:
            if worker is None:
                raise Skipped(reason)
            answer = worker.answer(json.loads(line))
        except Skipped as skipped:
            answer = {"skipped": str(skipped)}
        except Exception as error:  # said where it is seen, and the others go on
            answer = {"skipped": f"Spyx failed: {type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
