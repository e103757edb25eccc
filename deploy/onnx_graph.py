"""Building ONNX graphs: nodes and constants with readable names, and a checked model around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

import numpy as np

from ..errors import ExportError, ToolError
from .artefact import LICENCE, NOTICE

OPSET, IR = 18, 8
"""The oldest that have every operation printed here, so that older runtimes read the files too."""
MAX_BYTES = (1 << 31) - 1
"""What one ONNX file may hold."""


def onnx_module() -> ModuleType:
    """The package ``onnx``. Raises :class:`ToolError`, saying how to install it, where it is missing."""
    try:
        import onnx
        import onnx.checker
        import onnx.helper
        import onnx.numpy_helper
    except ImportError as error:
        raise ToolError(
            f"ONNX files are written with the package onnx: pip install 'ranvier[onnx]' ({error})"
        ) from error
    return onnx


@dataclass(frozen=True)
class Port:
    """An input or output of a graph: its name, NumPy element type and shape (text for a free dimension)."""

    name: str
    dtype: Any
    shape: tuple[int | str, ...]

    def info(self) -> Any:
        return onnx_module().helper.make_tensor_value_info(self.name, onnx_type(self.dtype), list(self.shape))


def onnx_type(dtype: Any) -> int:
    """ONNX's number of a NumPy type."""
    return onnx_module().helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


class Graph:
    """Nodes in order. A Scan's body may read the graph around it: constants lie there, and no name is used twice."""

    def __init__(self, outer: Graph | None = None) -> None:
        self.outer = outer
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {} if outer is None else outer.constants
        self._names: set[str] = set() if outer is None else outer._names

    @property
    def root(self) -> Graph:
        """The graph whose nodes run once."""
        return self if self.outer is None else self.outer

    def name(self, wanted: str) -> str:
        """``wanted``, or with a number where that is taken."""
        name, number = wanted, 1
        while name in self._names:
            number += 1
            name = f"{wanted}#{number}"
        self._names.add(name)
        return name

    def constant(self, wanted: str, value: np.ndarray) -> str:
        """A constant of its own."""
        name = self.name(wanted)
        self.constants[name] = np.ascontiguousarray(value)
        return name

    def number(self, value: float, dtype: Any) -> str:
        """A number, one constant for all its uses."""
        kind = np.dtype(dtype)
        return self._shared(f"{kind.name}({value!r})", np.array(value, kind))

    def sizes(self, *values: int) -> str:
        """Whole numbers [n], as shapes and positions are given, one constant for all their uses."""
        return self._shared(f"[{', '.join(map(str, values))}]", np.array(values, np.int64))

    def _shared(self, name: str, value: np.ndarray) -> str:
        self._names.add(name)
        self.constants.setdefault(name, value)
        return name

    def op(self, kind: str, inputs: Sequence[str], out: str, **attributes: Any) -> str:
        """Append a node with one result, called ``out`` (with a number where that is taken); returns its name."""
        name = self.name(out)
        self.add(kind, inputs, [name], **attributes)
        return name

    def add(self, kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> None:
        """Append a node whose results are called ``outputs``."""
        node = onnx_module().helper.make_node(kind, list(inputs), list(outputs), name=outputs[0], **attributes)
        self.nodes.append(node)

    def cast(self, value: str, dtype: Any, out: str) -> str:
        return self.op("Cast", [value], out, to=onnx_type(dtype))

    def proto(self, name: str, inputs: Sequence[Port], outputs: Sequence[Port]) -> Any:
        """The finished graph; a body has its constants outside."""
        onnx = onnx_module()
        own = [onnx.numpy_helper.from_array(v, n) for n, v in self.constants.items()] if self.outer is None else []
        return onnx.helper.make_graph(self.nodes, name, [p.info() for p in inputs], [p.info() for p in outputs], own)


def model_bytes(graph: Any, about: str, metadata: Mapping[str, str]) -> bytes:
    """The graph as the contents of a file, checked.

    Raises:
        ExportError: if the file would be larger than an ONNX file may be.
    """
    onnx = onnx_module()
    try:
        release = version("ranvier")
    except PackageNotFoundError:
        release = "0+unknown"
    model = onnx.helper.make_model(
        graph,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR,
        producer_name="ranvier",
        producer_version=release,
        doc_string=about,
    )
    onnx.helper.set_model_props(model, {"licence": f"{LICENCE}. {NOTICE}", **metadata})
    if model.ByteSize() > MAX_BYTES:
        raise ExportError(
            f"{graph.name}: the ONNX file would have {model.ByteSize()} bytes; at most {MAX_BYTES} fit one"
        )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)
