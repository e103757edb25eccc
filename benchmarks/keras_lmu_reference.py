"""Make tests/data/keras_lmu.json: what keras-lmu's cell computes from given weights and inputs.

keras-lmu is not a dependency of Ranvier. Install it into an environment of its own and run this file with it:

    python3 -m venv /tmp/lmu && /tmp/lmu/bin/pip install tensorflow-cpu==2.21.0 keras-lmu==0.9.0
    /tmp/lmu/bin/python benchmarks/keras_lmu_reference.py
"""

from __future__ import annotations

import json
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

OUT = Path(__file__).resolve().parents[1] / "tests" / "data" / "keras_lmu.json"
STEPS, BATCH, INPUTS, CHANNELS, HIDDEN, ORDER = 30, 2, 3, 2, 4, 6


def one(theta: float, method: str, seed: int) -> dict[str, Any]:
    """The cell's hidden states and last memory in float64, all its options on."""
    keras = import_module("keras")
    keras.backend.set_floatx("float64")
    rng = np.random.default_rng(seed)
    hidden = keras.layers.SimpleRNNCell(HIDDEN, bias_initializer="normal")
    cell = import_module("keras_lmu").LMUCell(
        CHANNELS, ORDER, theta, hidden, hidden_to_memory=True, memory_to_memory=True, input_to_hidden=True,
        discretizer=method, seed=seed,
    )  # fmt: skip
    x = np.round(rng.normal(size=(STEPS, BATCH, INPUTS)), 4)
    layer = keras.layers.RNN(cell, return_sequences=True, return_state=True)
    layer(np.swapaxes(x, 0, 1))
    weights = [np.round(rng.normal(size=w.shape) * 0.3, 4) for w in layer.get_weights()]
    names = [w.path.rsplit("/", 2)[-2:] for w in layer.weights]
    layer.set_weights(weights)
    out, memory, _ = (np.asarray(a) for a in layer(np.swapaxes(x, 0, 1)))
    return {
        "theta": theta,
        "method": method,
        "x": x.tolist(),
        "weights": {"/".join(n): w.tolist() for n, w in zip(names, weights, strict=True)},
        "a": np.asarray(cell.A).T.tolist(),
        "b": np.asarray(cell.B).T.tolist(),
        "h": np.swapaxes(out, 0, 1).tolist(),
        "m": memory.reshape(BATCH, CHANNELS, ORDER).tolist(),
    }


def main() -> None:
    made = {
        "by": f"benchmarks/keras_lmu_reference.py, keras-lmu {version('keras-lmu')}, tensorflow "
        f"{version('tensorflow-cpu')}, keras {version('keras')}",
        "runs": [one(20.0, "zoh", 0), one(60.0, "euler", 1), one(7.5, "zoh", 2)],
    }
    OUT.write_text(json.dumps(made) + "\n", "utf-8")


if __name__ == "__main__":
    main()
