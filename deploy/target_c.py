"""The target ``c``: exported C99, compiled with the system's compiler and replayed on the host."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ToolError
from .c import export_c
from .integer import IntegerNetwork, IntegerResult
from .tools import find_tool, run_tool
from .verify import Stimuli

WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-pedantic")


class CTarget:
    name = "c"

    def export(self, inet: IntegerNetwork, folder: str | Path, name: str, vectors: Stimuli | None = None) -> list[Path]:
        return export_c(inet, folder, name, vectors)

    def unavailable(self) -> str | None:
        return (
            None
            if find_tool("cc", "gcc", "clang")
            else "no C compiler (cc, gcc or clang) found; on Debian and Ubuntu: sudo apt install gcc"
        )

    def measure(self, folder: str | Path, name: str) -> dict[str, Any]:
        """``bytes`` (text + data of the object at -Os), ``ram`` (size of the state), and ``bytes_cortex_m4`` where that
        compiler is present.
        """
        source = Path(folder).resolve()
        with tempfile.TemporaryDirectory() as work:
            build = [_compiler(), *WARNINGS, "-I", source, source / f"{name}.c"]
            run_tool([*build, source / f"{name}_replay.c", "-o", "replay"], work)
            figures: dict[str, Any] = {"ram": int(run_tool(["./replay", "size"], work))}
            run_tool([*build, "-Os", "-c", "-o", "object.o"], work)
            figures["bytes"] = object_bytes(find_tool("size"), work)
            arm = find_tool("arm-none-eabi-gcc")
            if arm:
                cpu = ["-mcpu=cortex-m4", "-mthumb", "-ffreestanding"]
                run_tool([arm, *cpu, *build[1:], "-Os", "-c", "-o", "object.o"], work)
                figures["bytes_cortex_m4"] = object_bytes(find_tool("arm-none-eabi-size"), work)
        return figures

    def replay(
        self, inet: IntegerNetwork, folder: str | Path, name: str, stimuli: Mapping[str, np.ndarray], ends: np.ndarray
    ) -> tuple[IntegerResult, dict[str, Any]]:
        source = Path(folder).resolve()
        with tempfile.TemporaryDirectory() as work:
            build = [_compiler(), *WARNINGS, "-I", source, source / f"{name}.c"]
            run_tool([*build, "-O2", source / f"{name}_replay.c", "-o", "replay"], work)
            run_tool([*build, source / f"{name}_test.c", "-o", "selftest"], work)
            out = run_tool(["./replay"], work, stdin=_encode(stimuli, ends))
            result = _decode(inet, out, ends)
        return result, self.measure(folder, name)


def _compiler() -> str:
    found = find_tool("cc", "gcc", "clang")
    if found is None:
        raise ToolError("no C compiler (cc, gcc or clang) found; on Debian and Ubuntu: sudo apt install gcc")
    return found


def object_bytes(size: str | None, folder: str) -> int | None:
    """text + data of ``object.o`` in ``folder``, or None without binutils' ``size``."""
    if size is None:
        return None
    text, data = run_tool([size, "object.o"], folder).decode().splitlines()[1].split()[:2]
    return int(text) + int(data)


def _encode(stimuli: Mapping[str, np.ndarray], ends: np.ndarray) -> bytes:
    """Per sample the number of steps (int32) and then the input of each step, all ports in order."""
    frame = np.dtype([(n, v.dtype, v.shape[2:]) for n, v in stimuli.items()])
    joined = np.zeros(next(iter(stimuli.values())).shape[:2], frame)
    for name, values in stimuli.items():
        joined[name] = values
    return b"".join(np.int32(end).tobytes() + joined[:end, b].tobytes() for b, end in enumerate(ends))


def _decode(inet: IntegerNetwork, data: bytes, ends: np.ndarray) -> IntegerResult:
    frame = np.dtype([(p.name, p.program.dtype, (p.size,)) for p in inet.populations])
    read = inet.population(inet.readout[0])
    tail_size = 1 + read.size + sum(p.size * len(p.program.states) for p in inet.populations)
    if len(data) != int(ends.sum()) * frame.itemsize + len(ends) * tail_size * 8:
        raise ToolError(
            f"the C program wrote {len(data)} bytes, not what {len(ends)} samples take; its files do not belong to "
            "this network"
        )
    outputs = {p.name: np.zeros((int(ends.max()), len(ends), p.size), frame[p.name].base) for p in inet.populations}
    states = {
        p.name: {s.name: np.zeros((len(ends), p.size), np.int64) for s in p.program.states} for p in inet.populations
    }
    readout, classes = np.zeros((len(ends), read.size), np.int64), np.zeros(len(ends), np.int64)
    at = 0
    for b, end in enumerate(ends):
        frames = np.frombuffer(data, frame, count=int(end), offset=at)
        at += frames.nbytes
        for p in inet.populations:
            outputs[p.name][:end, b] = frames[p.name]
        tail = np.frombuffer(data, np.int64, count=tail_size, offset=at)
        at += tail.nbytes
        classes[b], readout[b], rest = tail[0], tail[1 : 1 + read.size], tail[1 + read.size :]
        for p in inet.populations:
            for s in p.program.states:
                states[p.name][s.name][b], rest = rest[: p.size], rest[p.size :]
    return IntegerResult(outputs, readout, classes, states)
