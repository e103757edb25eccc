"""The command line: what it prints where, its exit codes, its errors, and the report it writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from ranvier.cli import app
from ranvier.datasets import write_shd
from ranvier.deploy import TARGETS

CHANNELS = 20


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two small event files and one trained run."""
    folder = tmp_path_factory.mktemp("home")
    for name, seed in (("train", 0), ("test", 1)):
        rng = np.random.default_rng(seed)
        labels, speakers = np.arange(36) % 3, np.arange(36) // 3 % 3 + 3 * seed
        times = [np.sort(rng.uniform(0, 0.1, 60)) for _ in labels]
        units = [(6 * label + rng.integers(0, 8, 60)) % CHANNELS for label in labels]
        write_shd(folder / f"{name}.h5", times, units, labels, speakers, ["a", "b", "c<"], channels=CHANNELS)
    done = call(folder, "train", "digits", *settings(folder), "--run", "small")
    assert done.returncode == 0, done.stderr
    return folder


def settings(folder: Path) -> list[str]:
    return [
        "data.source=files", f"data.train=[{folder}/train.h5]", f"data.test=[{folder}/test.h5]", "data.channels=20",
        "channel_factor=2", "dt=5", "window=100", "relative=false", "validation_speakers=1", "hidden=[12]", "epochs=6",
        "batch_size=8", "channel_shift=0", "channel_mask=0", "channel_fade=0", "lr=0.02",
    ]  # fmt: skip


def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``ranvier`` in ``folder`` as a user does."""
    environment = {k: v for k, v in os.environ.items() if k != "RANVIER_RUNS"}
    environment |= {"COLUMNS": "200", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "ranvier.cli", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.fixture
def ranvier(home: Path, monkeypatch: pytest.MonkeyPatch):
    """``ranvier("eval", "small")`` in this process, in the folder ``home``: (exit code, stdout, stderr)."""
    monkeypatch.chdir(home)
    monkeypatch.delenv("RANVIER_RUNS", raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(app, list(arguments), catch_exceptions=False, env={"COLUMNS": "200"})
        return done.exit_code, done.stdout, done.stderr

    return run


def test_a_run_folder_holds_what_it_promises(home: Path) -> None:
    folder = home / "runs" / "small"
    for name in (
        "config.yaml",
        "graph.json",
        "model.safetensors",
        "metrics.csv",
        "metrics.json",
        "checkpoints/last.ckpt",
    ):
        assert (folder / name).is_file(), name
    assert list((folder / "tensorboard").glob("events.out.tfevents*"))
    assert (folder / "config.yaml").read_text().startswith("format: 1\n")
    assert json.loads((folder / "metrics.json").read_text())["format"] == 1


def test_json_owns_stdout_and_has_the_documented_keys(home: Path) -> None:
    done = call(home, "eval", "small", "--json")
    found = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1 and done.returncode == 0
    keys = {"run", "split", "samples", "accuracy", "params", "spikes_per_sample", "spikes_per_population"}
    assert set(found) == keys
    assert found["samples"] == 36 and 0 <= found["accuracy"] <= 1
    kept = json.loads((home / "runs/small/metrics.json").read_text())
    assert found["accuracy"] == kept["accuracy"] and found["params"] == kept["params"]
    assert found["spikes_per_sample"] == pytest.approx(sum(found["spikes_per_population"].values()))


def test_eval_needs_none_of_lightnings_files_and_no_pickle(home: Path, ranvier, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.yaml", "graph.json", "model.safetensors"):
        (bare / name).write_bytes((home / "runs/small" / name).read_bytes())
    code, out, _ = ranvier("eval", str(bare), "--json")
    assert code == 0
    assert json.loads(out)["accuracy"] == json.loads(ranvier("eval", "small", "--json")[1])["accuracy"]


def test_validation_split_is_of_training_speakers(ranvier) -> None:
    code, out, _ = ranvier("eval", "small", "--split", "validation", "--json")
    assert code == 0 and json.loads(out)["samples"] == 12


def test_export_and_verify_c(home: Path, ranvier) -> None:
    code, out, _ = ranvier("export", "small", "--target", "c", "--json")
    made = json.loads(out)
    assert code == 0
    assert {"accuracy", "params", "spikes_per_sample", "samples", "bytes", "ram", "files"} <= set(made)
    assert made["bytes"] > 0 and made["ram"] > 0
    assert all((home / path).is_file() for path in made["files"]["c"])
    code, out, _ = ranvier("verify", "small", "--target", "c", "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["differing_spikes"], found["samples"], found["reason"], found["passed"]) == (0, 36, None, True)
    assert (found["bytes"], found["ram"], found["accuracy"]) == (made["bytes"], made["ram"], made["accuracy"])
    assert found["targets"]["c"]["differing_states"] == 0


def test_nir_writes_a_file_that_reads_back(home: Path, ranvier, tmp_path: Path) -> None:
    pytest.importorskip("nir", reason="the package nir is not installed (pip install -e .[interop])")
    from ranvier import from_nir, load_network

    assert ranvier("train", "digits", *settings(home), "--run", "lif", "neuron=LIF", "epochs=1")[0] == 0
    code, out, _ = ranvier("nir", "lif")
    path = home / out.strip()
    assert code == 0 and path == home / "runs/lif/nir/lif.nir"
    net, back = load_network(home / "runs/lif"), from_nir(path)
    x = torch.randint(0, 3, (20, 4, 10)).float()
    with torch.no_grad():
        wanted = net.eval()(x, record=net.populations)
        got = back.eval()(x, record=net.populations)
    for name, sent in wanted.recorded.items():
        assert float(sent.abs().sum()) > 0
        assert float((sent != got.recorded[name]).float().mean()) < 0.01 or name == net.readout_of[0]
    torch.testing.assert_close(got.output, wanted.output, rtol=0.2, atol=0.2)
    for run, option, problem in (("lif", "hard", "reset must be one of circuit, note"), ("small", "note", "AdLIF")):
        code, _, err = ranvier("nir", run, "--out", str(tmp_path / "a.nir"), "--reset", option)
        assert code == 1 and problem in err and not list(tmp_path.iterdir())


def test_verify_fails_when_the_program_was_changed(home: Path, ranvier, tmp_path: Path) -> None:
    assert ranvier("export", "small", "--target", "c")[0] == 0
    (source,) = (p for p in (home / "runs/small/c").glob("*.c") if not p.stem.endswith(("_test", "_replay")))
    text = source.read_text()
    changed = text.replace("state->acc[i] = 0;", "state->acc[i] = 40;")
    assert changed != text
    source.write_text(changed)
    try:
        code, out, _ = ranvier("verify", "small", "--target", "c", "--json")
    finally:
        source.write_text(text)
    assert code == 1 and json.loads(out)["differing_spikes"] > 0


def test_a_missing_tool_is_null_with_a_reason(ranvier, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ranvier("export", "small", "--target", "c")[0] == 0
    monkeypatch.setattr(type(TARGETS["c"]), "unavailable", lambda self: "no C compiler found; sudo apt install gcc")
    code, out, _ = ranvier("verify", "small", "--target", "c", "--json")
    found = json.loads(out)
    assert code == 1 and found["differing_spikes"] is None and "sudo apt install gcc" in found["reason"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "digts"], "there is no experiment 'digts'; did you mean digits?"),
        (["train", "digits", "epohcs=3"], "unknown setting 'epohcs'; did you mean training.epochs?"),
        (["train", "digits", "--resume", "--run", "none"], "nothing to resume"),
        (["eval", "smal"], "there is no run 'smal', neither as a folder nor in runs; did you mean small?"),
        (["eval", "small", "--split", "all"], "split must be test or validation"),
        (["export", "small", "--target", "cc"], "there is no target 'cc'; did you mean c?"),
        (["data", "info", "none.h5"], "none.h5: no such file"),
        (["report", "none"], "there is no run 'none'"),
    ],
)
def test_an_error_is_one_line_on_stderr(ranvier, arguments: list[str], message: str) -> None:
    code, out, err = ranvier(*arguments)
    assert code == 1 and out == ""
    assert err.startswith("ranvier: ") and err.count("\n") == 1 and message in err


def test_debug_shows_the_traceback(home: Path) -> None:
    plain, debug = call(home, "eval", "none"), call(home, "--debug", "eval", "none")
    assert plain.returncode == 1 and "Traceback" not in plain.stderr
    assert "RunError" not in plain.stderr and "eval_run" not in plain.stderr
    # some libraries print tracebacks in a form of their own, without that word
    assert debug.returncode == 1 and "RunError" in debug.stderr and "eval_run" in debug.stderr


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("config.yaml", "format: 1", "format: 9", "format 9; this release reads format 1"),
        ("graph.json", '"format": 1', '"format": 7', "format 7; this release reads format 1"),
        ("graph.json", "{", "", "graph.json"),
        ("config.yaml", "source: files", "source: web", "data.source must be one of"),
    ],
)
def test_a_run_of_another_version_is_refused(
    home: Path, ranvier, tmp_path: Path, file: str, old: str, new: str, message: str
) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    for name in ("config.yaml", "graph.json", "model.safetensors"):
        (bad / name).write_bytes((home / "runs/small" / name).read_bytes())
    text = (bad / file).read_text()
    assert old in text
    (bad / file).write_text(text.replace(old, new, 1))
    code, _, err = ranvier("eval", str(bad))
    assert code == 1 and message in err and "bad" in err


def test_data_info_counts(home: Path, ranvier) -> None:
    code, out, err = ranvier("data", "info", str(home / "train.h5"), "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["samples"], found["events"], found["classes"], found["speakers"]) == (36, 36 * 60, 3, 3)


def test_training_again_says_that_nothing_is_left(home: Path, ranvier) -> None:
    code, _, err = ranvier("train", "digits", *settings(home), "--run", "small")
    assert code == 0 and "is finished with these settings" in err
    code, _, err = ranvier("train", "digits", *settings(home), "seed=5", "--run", "small")
    assert code == 1 and "training.seed: 0 -> 5" in err and "--overwrite" in err


def test_info_lists_experiments_settings_and_runs(ranvier) -> None:
    assert "fsdd" in ranvier("info")[1]
    assert "training.epochs" in ranvier("info", "--settings")[1]
    code, out, _ = ranvier("info", "small")
    assert code == 0 and "finished" in out and "hidden = [12]" in out


class Page(HTMLParser):
    """What a report's HTML holds, and whether its tags close."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.details = self.tables = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.images += [dict(attrs)] if tag == "img" else []
        self.details += tag == "details"
        self.tables += tag == "table"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_report_is_whole_accessible_and_self_contained(home: Path, ranvier) -> None:
    for command in ("export", "verify"):
        assert ranvier(command, "small", "--target", "c")[0] == 0
    code, out, _ = ranvier("report", "small")
    assert code == 0
    path = home / out.strip()
    text = path.read_text()
    page = Page()
    page.feed(text)
    assert page.open == []
    assert len(page.images) == 6  # curves, confusion, rates, three rasters
    for image in page.images:
        assert (image["src"] or "").startswith("data:image/")
        assert len(image["alt"] or "") > 40
    assert page.details >= len(page.images)
    assert "http" not in text.replace("http://www.w3.org", "") and "<script" not in text
    assert "Every spike of every population is the same" in text
    assert "c&lt;" in text and ">c<<" not in text
    accuracy = json.loads(ranvier("eval", "small", "--json")[1])["accuracy"]
    assert f"<b>{100 * accuracy:.1f} %</b>" in text


def test_report_before_export_says_what_is_missing(home: Path, ranvier, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.yaml", "graph.json", "model.safetensors"):
        (bare / name).write_bytes((home / "runs/small" / name).read_bytes())
    code, _, _ = ranvier("report", str(bare))
    text = (bare / "report.html").read_text()
    assert code == 0 and "Not exported yet" in text and "Training has not finished" in text


def test_demo_ends_with_the_table_and_fails_on_a_difference(
    ranvier, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ranvier.experiments import demo

    monkeypatch.setattr(demo, "VERIFIED", {"c": None})
    code, out, err = ranvier("demo", *settings(home), "--run", "shown")
    assert code == 0, err
    for row in ("test accuracy, float", "8-bit integers", "kernel ridge", "parameters", "spikes per sample", "of RAM"):
        assert row in out
    assert "0 in 36 samples" in out and str(Path("runs/shown/report.html")) in out
    assert (home / "runs/shown/report.html").is_file()
    export = demo.export_run

    def damaged(*arguments: object) -> dict:
        result = export(*arguments)  # type: ignore[arg-type]
        source = home / "runs/shown/c/shown.c"
        source.write_text(source.read_text().replace("state->acc[i] = 0;", "state->acc[i] = 40;"))
        return result

    monkeypatch.setattr(demo, "export_run", damaged)
    code, out, _ = ranvier("demo", *settings(home), "--run", "shown")
    assert code == 1 and "0 in 36 samples" not in out.replace(",0 in", "").replace("00 in", "")


def test_two_devices_train_one_network(home: Path) -> None:
    # frozen delays, of the last quarter, have no gradient to wait for
    some = ("epochs=4", "devices=2", "delay_recurrent=axonal", "engine=eager")
    done = call(home, "train", "digits", *settings(home), *some, "--run", "two")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("samples to train on") == 1  # only one process speaks
    assert json.loads((home / "runs/two/metrics.json").read_text())["epochs"] == 4
    assert len((home / "runs/two/metrics.csv").read_text().splitlines()) == 5
