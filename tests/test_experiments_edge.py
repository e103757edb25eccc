"""`ranvier export --table`: a run on sensor recordings on devices, from normalised numbers and from the sensor's."""

from __future__ import annotations

from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from ranvier import cli
from ranvier.deploy import TARGETS, IntegerNetwork
from ranvier.errors import ConfigError
from ranvier.experiments import edge, har, override
from ranvier.experiments.compression import compress_run
from ranvier.experiments.har_data import load_training
from ranvier.experiments.raw_samples import raw
from ranvier.experiments.runs import read_json
from ranvier.experiments.workflow import export_run, open_split, verify_run

QUIET = Console(quiet=True)
ABLE = [n for n in ("c", "onnx") if not TARGETS[n].unavailable()]
needs_c = pytest.mark.skipif("c" not in ABLE, reason="needs a C compiler")
LSB = [1 / 4096, 1 / 4096, 1 / 4096, 1 / 512, 1 / 512, 1 / 512]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small L2MU trained on four people in UCI-HAR's layout."""
    root = tmp_path_factory.mktemp("edge")
    rng = np.random.default_rng(0)
    for part, people in (("train", (1, 2, 3)), ("test", (4,))):
        folder = root / "UCI HAR Dataset" / part
        (folder / "Inertial Signals").mkdir(parents=True)
        labels = np.tile([1, 2], 4 * len(people))
        np.savetxt(folder / f"subject_{part}.txt", np.repeat(people, 8), fmt="%d")
        np.savetxt(folder / f"y_{part}.txt", labels, fmt="%d")
        for name in [f"{a}_{b}" for a in ("total_acc", "body_gyro") for b in "xyz"]:
            wave = np.sin(2 * np.pi * labels[:, None] * np.arange(128) / 50 + rng.uniform(0, 6, (len(labels), 1)))
            wave += (name == "total_acc_z") + rng.normal(0, 0.2, wave.shape)
            np.savetxt(folder / "Inertial Signals" / f"{name}_{part}.txt", wave, fmt="% .5e")
    small = ("hidden=[6]", "model.channels=2", "order=3", "copies=2", "epochs=2", "batch_size=8")
    config = override(har.defaults(), ["source=uci_har", f"root={root}", *small])
    har.train_one(har.fold_config(config, [4]), root / "run", QUIET)
    return root / "run"


def test_raw_numbers_stand_for_what_training_saw(run: Path) -> None:
    split = open_split(run)
    own = raw(split, LSB)
    rows = np.arange(len(split))
    numbers = own.batch(rows).counts
    assert str(numbers.dtype) == "torch.int16" and numbers.shape == split.batch(rows).counts.shape
    sensor = own.sensor
    real = numbers.numpy() * np.asarray(sensor.unit) + np.asarray(sensor.offset)
    seen = split.batch(rows).counts.numpy()
    inside = np.abs(seen) < 3.9  # training cuts what lies further out
    assert inside.mean() > 0.9 and np.abs(real - seen)[inside].max() < 0.5 / 32 + np.max(sensor.unit)
    assert np.array_equal(own.batch(rows).targets.numpy().argmax(1), split.labels)
    assert raw(split, [0.5]).lsb == (0.5,) * 6
    for wrong in ([1.0, 2.0], [0.0], [float("nan")] * 6):
        with pytest.raises(ConfigError, match="one number above 0, or one for each of 6 axes"):
            raw(split, wrong)
    with pytest.raises(ConfigError, match="not on sensor recordings"):
        raw(object(), [1.0])  # type: ignore[arg-type]


@needs_c
def test_the_table(run: Path) -> None:
    targets = [*ABLE, *(["verilog"] if which("iverilog") or which("verilator") else [])]
    found = edge.edge_run(run, targets, QUIET, LSB, verilog=1)
    assert found == {k: v for k, v in read_json(run / "edge.json").items() if k != "format"}
    assert found["samples"] == 16 and found["passed"] and found["lsb"] == LSB
    rows: dict[str, Any] = {r["target"]: r for r in found["rows"]}
    inet = IntegerNetwork.load(run / "integer")
    unit = raw(load_training_of(run), LSB).sensor.unit
    np.testing.assert_allclose(inet.inputs[0].units, unit)
    c = rows["C99, this CPU"]
    assert (c["samples"], c["differing"]) == (16, 0) and c["latency_ms"] > 0 and c["program"] > c["model"] > 0
    assert c["accuracy"] == read_json(run / "export.json")["accuracy"]
    arm = rows["C99, Cortex-M4"]
    if "reason" not in found["cortex_m4"]:
        assert arm["differing"] == 0 and arm["instructions"] > 40 * 100 and arm["ram"] > c["ram"]
    if "onnx" in targets:
        for kind in ("integer", "float32"):
            for form in ("window", "step"):
                row = rows[f"ONNX, {kind}, {form}"]
                assert row["samples"] == 16 and row["latency_ms"] > 0 and row["model"] > 1000
        assert rows["ONNX, integer, step"]["differing"] == 0
    if "verilog" in targets:
        verilog = rows["SystemVerilog"]
        assert (verilog["samples"], verilog["differing"]) == (1, 0) and verilog["clocks"] > 40 * 20
        assert verilog["model"] >= sum(c.weights.size for p in inet.populations for c in p.connections)
    text = (run / "edge.md").read_text()
    assert "the sensor's own 16-bit numbers" in text
    assert text.count("\n| ") == 1 + len(rows)
    # the other numbers: all that is there is written again
    assert export_run(run, ["c"], QUIET)["lsb"] == []
    again = verify_run(run, ABLE, QUIET)
    assert again["differing_spikes"] == 0 and IntegerNetwork.load(run / "integer").inputs[0].offsets == (0.0,) * 6


def load_training_of(run: Path) -> Any:
    from ranvier.experiments import load_config

    return load_training(load_config(run))[0]


@needs_c
def test_a_difference_is_in_the_table(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(*arguments: Any, **options: Any) -> dict[str, Any]:
        made = export_run(*arguments, **options)
        (source,) = (p for p in (run / "c").glob("*.c") if not p.stem.endswith(("_test", "_replay")))
        source.write_text(source.read_text().replace("state->acc[i] = 0;", "state->acc[i] = 40;"))
        return made

    monkeypatch.setattr(edge, "export_run", damaged)
    found = edge.edge_run(run, ["c"], QUIET)
    row = found["rows"][1]
    assert not found["passed"] and row["differing"] > 0 and row["accuracy"] is None


@needs_c
def test_a_compressed_run_on_a_device(run: Path) -> None:
    made = compress_run(run, QUIET, bits=4, prune=0.5, epochs=1)
    found = edge.edge_run(made["run"], ["c"], QUIET)
    whole = edge.edge_run(run, ["c"], QUIET)
    assert found["passed"] and found["weight_bits"] == 4
    assert found["rows"][1]["model"] < 0.8 * whole["rows"][1]["model"]
    matrix = IntegerNetwork.load(Path(made["run"]) / "integer").population("l2mu_h").connections
    assert all(np.mean(c.weights == 0) >= 0.49 for c in matrix)


def test_refused(run: Path, tmp_path: Path) -> None:
    for arguments, message in (
        (["--sensor", "a,b"], "--sensor takes numbers with commas, got 'a,b'"),
        (["--sensor", "1,2"], "one for each of 6 axes; got 1, 2"),
        (["--table", "--out", str(tmp_path)], "leave out --out"),
    ):
        said = CliRunner().invoke(cli.app, ["export", str(run), "--target", "c", *arguments])
        assert said.exit_code == 1 and message in said.stderr.replace("\n", " "), said.stderr
