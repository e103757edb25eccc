"""Exporter to self-contained C99: prints the integer network, decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .artefact import contract, default_vectors, write_all
from .c_harness import replay, self_test, vectors_header
from .c_header import header
from .c_names import CNames
from .c_source import source
from .integer import IntegerNetwork
from .names import checked_name


def export_c(
    inet: IntegerNetwork, folder: str | Path, name: str, vectors: np.ndarray | Mapping[str, np.ndarray] | None = None
) -> list[Path]:
    """Write ``NAME.h``, ``NAME.c``, ``NAME_contract.txt``, ``NAME_vectors.h`` and ``NAME_test.c`` (a self-test on those
    vectors), and ``NAME_replay.c`` (samples from stdin, outputs to stdout; the verifier runs it).

    Args:
        vectors: input samples [T, B, N] to ship as test vectors; a few random ones by default.

    Raises:
        ExportError: before any file is written.
    """
    c = CNames(inet, checked_name(name))
    files = {
        f"{name}.h": header(c),
        f"{name}.c": source(c),
        f"{name}_contract.txt": contract(inet),
        f"{name}_vectors.h": vectors_header(c, default_vectors(inet) if vectors is None else vectors),
        f"{name}_test.c": self_test(c),
        f"{name}_replay.c": replay(c),
    }
    return write_all(folder, files)
