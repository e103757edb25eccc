"""The target ``onnx``: the exported models, run by ONNX Runtime."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..errors import ToolError
from .integer import IntegerNetwork, IntegerResult
from .onnx import export_onnx
from .onnx_graph import onnx_module
from .verify import Stimuli

BATCH = 64
TIMED = 20


class OnnxTarget:
    """Replays both models: whole windows, samples of equal length together, and the stream, step by step."""

    name = "onnx"

    def export(self, inet: IntegerNetwork, folder: str | Path, name: str, vectors: Stimuli | None = None) -> list[Path]:
        return export_onnx(inet, folder, name)

    def unavailable(self) -> str | None:
        try:
            onnx_module()
            runtime_module()
        except ToolError as error:
            return str(error)
        return None

    def replay(
        self, inet: IntegerNetwork, folder: str | Path, name: str, stimuli: Mapping[str, np.ndarray], ends: np.ndarray
    ) -> tuple[IntegerResult, dict[str, Any]]:
        files = [Path(folder) / f"{name}.onnx", Path(folder) / f"{name}_step.onnx"]
        whole, step = (open_model(path) for path in files)
        given = {f"in.{n}": v if v.dtype == np.uint8 else v.astype(np.int32) for n, v in stimuli.items()}
        result = as_result(inet, run_windows(whole, given, ends))
        stream = as_result(inet, run_stream(step, given, ends))
        figures: dict[str, Any] = {
            "tool": f"onnxruntime {runtime_module().__version__}",
            "bytes": files[0].stat().st_size,
            "bytes_step": files[1].stat().st_size,
            **latency(whole, step, given),
            "disagreements": differences(result, stream),
        }
        return result, figures


def runtime_module() -> ModuleType:
    """The package ``onnxruntime``. Raises :class:`ToolError`, saying how to install it, where it is missing."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ToolError(
            f"ONNX files are run with the package onnxruntime: pip install 'ranvier[onnx]' ({error})"
        ) from error
    return onnxruntime


def open_model(path: Path, threads: int = 1) -> Any:
    """A session of ONNX Runtime on the CPU. Raises :class:`ToolError` if the file is missing, damaged or refused."""
    runtime = runtime_module()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime has many exceptions of its own
        raise ToolError(f"onnxruntime does not run {path}: {error}") from error


def run_windows(model: Any, given: Mapping[str, np.ndarray], ends: np.ndarray) -> dict[str, np.ndarray]:
    """Every output of a whole-window model on ``given`` [T, B, N]; sample b is its first ``ends[b]`` steps."""
    names = [o.name for o in model.get_outputs()]
    found: dict[str, np.ndarray] = {}
    for length in np.unique(ends):
        rows = np.flatnonzero(ends == length)
        for some in np.split(rows, range(BATCH, len(rows), BATCH)):
            got = _run(model, names, {n: np.ascontiguousarray(v[:length, some]) for n, v in given.items()})
            for name, value in zip(names, got, strict=True):
                _place(found, name, value, some, int(ends.max()), len(ends))
    return found


def run_stream(model: Any, given: Mapping[str, np.ndarray], ends: np.ndarray) -> dict[str, np.ndarray]:
    """The same from the single-step model, fed with its own states."""
    names = [o.name for o in model.get_outputs()]
    batch, found = len(ends), dict[str, np.ndarray]()
    state = _no_state(model, batch)
    for k in range(int(ends.max())):
        now = {n: np.ascontiguousarray(v[k]) for n, v in given.items()}
        got = dict(zip(names, _run(model, names, {**now, **state, "reset": np.array([k == 0])}), strict=True))
        state = {n: got[f"next.{n.removeprefix('state.')}"] for n in state}
        last = np.flatnonzero(ends == k + 1)
        for name, value in got.items():
            if name.startswith("out."):
                every = found.setdefault(name, np.zeros((int(ends.max()), *value.shape), value.dtype))
                every[k] = np.where((ends > k)[:, None], value, 0)
            else:
                name = name.replace("next.", "state.", 1)
                found.setdefault(name, np.zeros(value.shape, value.dtype))[last] = value[last]
    return found


def _no_state(model: Any, batch: int) -> dict[str, np.ndarray]:
    kinds = {"uint8": np.uint8, "int32": np.int32, "int64": np.int64, "float": np.float32}
    return {
        i.name: np.zeros((batch, i.shape[1]), kinds[i.type.removeprefix("tensor(").removesuffix(")")])
        for i in model.get_inputs()
        if i.name.startswith("state.")
    }


def latency(whole: Any, step: Any, given: Mapping[str, np.ndarray]) -> dict[str, float]:
    """``ms_per_window`` of the whole-window model and ``ms_per_step`` of the other one, on the first sample of
    ``given`` [T, B, N]: the least of 20 calls, on one thread.
    """
    one = {n: np.ascontiguousarray(v[:, :1]) for n, v in given.items()}
    names = [o.name for o in step.get_outputs() if not o.name.startswith("out.")]
    first = {n: v[0] for n, v in one.items()} | _no_state(step, 1) | {"reset": np.array([True])}
    return {
        "ms_per_window": _milliseconds(lambda: whole.run(["class"], one)),
        "ms_per_step": _milliseconds(lambda: step.run(names, first)),
    }


def _place(
    found: dict[str, np.ndarray], name: str, value: np.ndarray, rows: np.ndarray, steps: int, batch: int
) -> None:
    if name.startswith("out."):
        found.setdefault(name, np.zeros((steps, batch, value.shape[2]), value.dtype))[: len(value), rows] = value
    else:
        found.setdefault(name, np.zeros((batch, *value.shape[1:]), value.dtype))[rows] = value


def _run(model: Any, names: list[str], given: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    try:
        return model.run(names, dict(given))
    except Exception as error:
        raise ToolError(
            f"onnxruntime stopped ({error}); the files do not belong to this network, or the samples do not"
        ) from error


def as_result(inet: IntegerNetwork, found: Mapping[str, np.ndarray]) -> IntegerResult:
    """What a model gave, as the golden model gives it. Raises :class:`ToolError` if it is of another network."""
    try:
        outputs = {p.name: found[f"out.{p.name}"] for p in inet.populations}
        states = {
            p.name: {s.name: found[f"state.{p.name}.{s.name}"].astype(np.int64) for s in p.program.states}
            for p in inet.populations
        }
        result = IntegerResult(outputs, found["readout"], found["class"], states)
    except KeyError as error:
        raise ToolError(f"the ONNX file has no output {error}; it does not belong to this network") from error
    sizes = [outputs[p.name].shape[2] for p in inet.populations]
    if sizes != [p.size for p in inet.populations]:
        raise ToolError(f"the ONNX file has populations of {sizes} neurons; it does not belong to this network")
    return result


def differences(a: IntegerResult, b: IntegerResult) -> int:
    """How many outputs, readouts, states and classes differ between two results."""
    count = sum(int(np.sum(a.outputs[p] != b.outputs[p])) for p in a.outputs)
    count += sum(int(np.sum(v != b.states[p][s])) for p, own in a.states.items() for s, v in own.items())
    return count + int(np.sum(a.readout != b.readout)) + int(np.sum(a.classes != b.classes))


def _milliseconds(call: Any) -> float:
    times = []
    for _ in range(TIMED):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times) * 1e3
