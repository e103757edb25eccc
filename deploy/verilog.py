"""Exporter to SystemVerilog: a plain time-multiplexed core that prints the integer network and decides nothing.

One synapse or one neuron is processed per clock. Rows of weights are read only for sources that fired (or have a count); weights, states,
tables and event lists are memories with a registered read, so that synthesis finds block RAM.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .artefact import contract, default_vectors, write_all
from .integer import IntegerNetwork
from .names import checked_name
from .verilog_core import core
from .verilog_memories import Memories
from .verilog_plan import CorePlan
from .verilog_testbench import commands, testbench


def export_verilog(
    inet: IntegerNetwork, folder: str | Path, name: str, vectors: np.ndarray | Mapping[str, np.ndarray] | None = None
) -> list[Path]:
    """Write the core ``NAME.sv``, its memories ``NAME_*.hex``, the replaying testbench ``NAME_tb.sv``, ``NAME_stimuli.txt`` (``vectors``, a few
    random ones by default) and ``NAME_contract.txt``.

    Raises:
        ExportError: before any file is written.
    """
    plan = CorePlan(inet, checked_name(name))
    memories = Memories(plan)
    stimuli = inet.stimuli(default_vectors(inet) if vectors is None else vectors)
    steps, batch = next(iter(stimuli.values())).shape[:2]
    files = {
        f"{name}.sv": core(plan, memories),
        f"{name}_tb.sv": testbench(inet, name),
        f"{name}_stimuli.txt": commands(inet, stimuli, np.full(batch, steps)),
        f"{name}_contract.txt": contract(inet),
    }
    return write_all(folder, files | memories.files)
