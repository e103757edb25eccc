"""What is timed, behind one interface: layers in this process, the products alone, and Spyx in its own process."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from .workload import Workload, make_workload, tune, tuning_cell

ROOT = Path(__file__).resolve().parents[1]
JAX_PYTHON = Path(os.environ.get("RANVIER_BENCH_JAX", ROOT / "build" / "peers-jax" / "bin" / "python"))
KINDS = ("forward", "step")
PROBE_STEPS = 25
LARGE = 8_000_000  # neuron-steps above which Spyx too is first tried on fewer steps: that is one more compilation


class Skipped(Exception):
    """A contestant that has no place in this cell; the message says why."""


class Contestant(Protocol):
    """Prepared for one cell at a time. ``time`` gives the seconds of one call, the mean of ``number`` calls in a row;
    ``step`` is forward and backward.
    """

    def prepare(self, work: Workload, limit_s: float) -> float | None:
        """Tune, compile and warm up; returns the hidden rate. Raises :class:`Skipped` where one step takes longer than
        ``limit_s``, or what runs nowhere here.
        """
        ...

    def time(self, kind: str, number: int) -> float: ...

    def release(self) -> None: ...


def timed(call: Callable[[], object], number: int) -> float:
    collecting = gc.isenabled()
    gc.disable()
    try:
        start = time.perf_counter()
        for _ in range(number):
            call()
        return (time.perf_counter() - start) / number
    finally:
        if collecting:
            gc.enable()


def too_slow(seconds: float, limit_s: float) -> None:
    """Raises :class:`Skipped` where ``seconds``, extrapolated from a shorter sequence, is over the limit."""
    if seconds > limit_s:
        raise Skipped(
            f"left out: about {seconds:.0f} s per step, extrapolated from {PROBE_STEPS} steps of time; the limit is "
            f"{limit_s:.0f} s (--budget raises it)"
        )


class TorchContestant:
    """A layer of :mod:`benchmarks.peers`."""

    def __init__(self, build: Callable[[Workload], Any]) -> None:
        self.build = build
        self.calls: dict[str, Callable[[], object]] = {}

    def prepare(self, work: Workload, limit_s: float) -> float | None:
        from .peers import Absent

        try:
            return self._prepare(work, limit_s)
        except Skipped:
            raise
        except Absent as absent:
            raise Skipped(str(absent)) from absent
        except Exception as error:  # said where it is seen, and the others go on
            raise Skipped(f"failed: {type(error).__name__}: {error}") from error

    def _prepare(self, work: Workload, limit_s: float) -> float | None:
        import torch

        torch.manual_seed(0)
        layer = self.build(work)
        x, upstream = torch.from_numpy(work.x), torch.from_numpy(work.upstream)
        if layer.w_in is not None:
            base, small = layer.w_in.detach().clone(), tuning_cell(work.cell)
            piece = x[: small.T, : small.B].contiguous()

            def rate_of(gain: float) -> float:
                with torch.no_grad():
                    layer.w_in.copy_(base * gain)
                    return float(layer.run(piece).mean())

            tune(rate_of, work.cell.rate)

        def step_on(x: torch.Tensor, upstream: torch.Tensor) -> None:
            output = layer.run(x)
            torch.autograd.grad(torch.dot(output.flatten(), upstream.flatten()), layer.parameters)

        short = min(PROBE_STEPS, work.cell.T)
        step_on(x[:short], upstream[:short])
        too_slow(timed(lambda: step_on(x[:short], upstream[:short]), 1) * work.cell.T / short, limit_s)
        self.calls = {"forward": lambda: layer.run(x), "step": lambda: step_on(x, upstream)}
        return float(layer.run(x).detach().mean()) if layer.w_in is not None else None

    def time(self, kind: str, number: int) -> float:
        return timed(self.calls[kind], number)

    def release(self) -> None:
        self.calls = {}


class FloorContestant:
    """:class:`benchmarks.peers.MatmulFloor`."""

    def __init__(self) -> None:
        self.calls: dict[str, Callable[[], object]] = {}

    def prepare(self, work: Workload, limit_s: float) -> float | None:
        from .peers import MatmulFloor

        floor = MatmulFloor(work)
        self.calls = {"forward": floor.forward, "step": floor.step}
        floor.step()
        return None

    def time(self, kind: str, number: int) -> float:
        return timed(self.calls[kind], number)

    def release(self) -> None:
        self.calls = {}


class SpyxContestant:
    """Spyx in the environment of ``python``: a process that makes the same arrays, times itself and answers over pipes.
    It rests while others are measured, as they do while it is.
    """

    def __init__(self, python: Path, threads: int) -> None:
        self.python = python
        self.threads = threads
        self.process: subprocess.Popen[str] | None = None
        self.versions: dict[str, str] = {}

    def start(self) -> None:
        """Start the process, so that its imports run beside ours. Without an environment this does nothing."""
        if self.process is None and self.python.exists():
            # -P: only what that environment has installed comes first on its path
            command = [str(self.python), "-P", str(ROOT / "benchmarks" / "spyx_worker.py"), str(self.threads)]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def prepare(self, work: Workload, limit_s: float) -> float | None:
        if not self.python.exists():
            raise Skipped(f"no environment with Spyx: {self.python} does not exist; run benchmarks/peers.sh")
        self.start()
        answer = self.ask(do="prepare", cell=work.cell.as_dict(), limit_s=limit_s)
        self.versions = answer["versions"]
        return answer["rate"]

    def time(self, kind: str, number: int) -> float:
        return float(self.ask(do="time", kind=kind, number=number)["seconds"])

    def release(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.ask(do="release")

    def close(self) -> None:
        if self.process is not None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            self.process.wait(10)

    def ask(self, **question: Any) -> dict[str, Any]:
        assert self.process is not None and self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code, self.process = self.process.wait(), None
            raise Skipped(f"the process of Spyx ended with status {code}; what it said is above")
        answer = json.loads(line)
        if "skipped" in answer:
            raise Skipped(answer["skipped"])
        return answer


def make_contestants(jax_python: Path, threads: int) -> dict[str, Contestant]:
    """Everyone, by the names of the JSON."""
    from .peers import LAYERS

    found: dict[str, Contestant] = {name: TorchContestant(build) for name, build in LAYERS.items()}
    found["spyx"] = SpyxContestant(jax_python, threads)
    found["matmul-floor"] = FloorContestant()
    return found


__all__ = [
    "JAX_PYTHON",
    "KINDS",
    "LARGE",
    "Contestant",
    "Skipped",
    "SpyxContestant",
    "make_contestants",
    "make_workload",
]
