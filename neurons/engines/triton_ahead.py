"""Compiling the triton engine's kernels for a GPU that is not there, and what they need of it.

Registers that do not suffice are spilled to memory, in every step: the kernels are printed such that this does not
happen, and the tests read it from ``ptxas``.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...errors import EngineError
from .plan import Plan
from .triton_gpu import loop_of, loop_options
from .triton_launch import OPTIONS, interpreted, load
from .triton_loop import SHARED
from .triton_loop_source import loop_source
from .triton_source import cell_source


@dataclass(frozen=True)
class Resources:
    """What a compiled kernel needs: ``registers`` of each of 32 ``warps`` threads, ``spills`` in bytes stored and
    loaded, ``shared`` memory in bytes, and the tensor core instructions in its code.
    """

    registers: int
    spills: int
    shared: int
    warps: int
    tensor_core: int


def compile_stage(plan: Plan, sizes: Sequence[int], capability: int) -> dict[str, Resources]:
    """Compile what runs a stage of these sizes in float32 for a compute capability of :data:`SHARED`; by kernel.

    Raises:
        EngineError: if triton only interprets.
    """
    if interpreted():
        raise EngineError("TRITON_INTERPRET is set, so that triton cannot compile; unset it")
    out: dict[str, Resources] = {}
    for i, size in enumerate(sizes):
        module = load(cell_source(plan, i, size, "float32"))
        out[f"cell{i} forward"] = _compile(module.forward, capability)
        if plan.gradients:
            out[f"cell{i} backward"] = _compile(module.backward, capability)
    if any(k.delayed for k in plan.links):
        out |= _compile_delays(capability)
    loop = loop_of(plan, sizes, torch.float32, SHARED[capability])
    if loop is not None:
        module = load(loop_source(loop))
        out["loop forward"] = _compile(module.forward, capability, **loop_options(loop, False))
        if plan.gradients:
            out["loop backward"] = _compile(module.backward, capability, **loop_options(loop, True))
    return out


def _compile_delays(capability: int) -> dict[str, Resources]:
    """The kernels of links with delays of their own, which depend on no plan."""
    from . import triton_delays as delays

    wide = {"SAMPLES": delays.SAMPLES, "CELLS": delays.CELLS}
    out: dict[str, Resources] = {}
    for way, after in (("before", False), ("after", True)):
        for end, add in (("", False), (" onto", True)):
            block = {"AFTER": after, "ADD": add, "BLOCK": delays.BLOCK}
            out[f"taps {way}{end}"] = _compile(delays.read_taps, capability, block)
        out[f"pairs {way}"] = _compile(delays.read_pairs, capability, {"AFTER": after, **wide})
    out["taps gradient"] = _compile(delays.of_taps, capability, {"BLOCK": delays.BLOCK})
    small = {"PAIRS": delays.PAIRS, "SAMPLES": delays.SAMPLES}
    out["pairs gradient"] = _compile(delays.of_pairs, capability, small)
    return out


def _compile(kernel: Any, capability: int, constants: Mapping[str, Any] | None = None, **options: Any) -> Resources:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constants = constants or {}
    signature = {n: _type_of(n, constants) for n in kernel.arg_names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(signature.values()) if kind.startswith("*")}
    compiled = triton.compile(
        ASTSource(kernel, signature, dict(constants), aligned),
        target=GPUTarget("cuda", capability, 32),
        options={**OPTIONS, **options},
    )
    registers, spills = _assembled(compiled.asm["ptx"], compiled.asm["cubin"], capability)
    matrix = len(re.findall(r"\b(?:mma\.sync|wgmma)\b", compiled.asm["ptx"]))
    return Resources(registers, spills, compiled.metadata.shared, compiled.metadata.num_warps, matrix)


def _type_of(name: str, constants: Mapping[str, Any]) -> str:
    if name in constants:
        return "constexpr"
    if name == "first" or re.fullmatch(r"[A-Z]\d*", name):
        return "i32"
    if re.fullmatch(r"(offsets|lags)\d*", name):
        return "*i32"
    return "*bf16" if re.fullmatch(r"weight\d+", name) else "*fp32"


def _assembled(ptx: str, cubin: bytes, capability: int) -> tuple[int, int]:
    """Registers and spilled bytes: as ``ptxas`` reports them, and as the cubin that triton made has them."""
    from triton import knobs

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "kernel.ptx").write_text(ptx)
        (Path(folder) / "kernel.cubin").write_bytes(cubin)
        target = re.search(r"\.target\s+(\w+)", ptx)
        assert target is not None
        command = [
            knobs.nvidia.ptxas.path,
            "-v",
            "--fmad=false",
            f"--gpu-name={target[1]}",
            "kernel.ptx",
            "-o",
            "again",
        ]
        report = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stderr
        command = [knobs.nvidia.cuobjdump.path, "-res-usage", "kernel.cubin"]
        usage = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout
    spilled = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", report)
    used = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert spilled is not None and used is not None, f"not understood: {report}{usage}"
    return int(used[1]), max(int(spilled[1]), int(spilled[2]) + int(spilled[3]), int(used[2]))
