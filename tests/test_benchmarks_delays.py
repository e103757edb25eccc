"""The benchmark of delays: everyone does the same work, and what is missing is said. No time is asserted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import delay_peers, delays, peers
from benchmarks.delays import DelayCell
from benchmarks.measure import measure_cell
from benchmarks.workload import Workload, make_workload
from ranvier.neurons import engines


def same(tasks: dict[str, dict[str, torch.Tensor]], first: str, tolerance: float) -> None:
    for name, found in tasks.items():
        assert set(found) == set(tasks[first]), name
        for key, value in found.items():
            expected = tasks[first][key]
            assert expected.abs().max() > 0, (name, key)
            worst = float((value - expected).abs().max() / expected.abs().max())
            assert worst < tolerance, f"{name}: {key} differs from {first} by {worst:.1e} of the largest"


@pytest.mark.parametrize("form", ["forward", "input"])
def test_feed_forward_contestants_agree(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs, and gradients of weights, delays and input; dcls where it is installed."""
    monkeypatch.setattr(engines, "WORTH_SPARSE", 0)  # so that the products by spikes and by shifted rows are taken
    for rate in (0.05, 0.4):
        work = make_workload(DelayCell(3, 40, 11, 18, rate, 9, form))
        found = {}
        for name in delays.FORWARD:
            try:
                found[name] = delay_peers.TASKS[name](work).common()
            except peers.Absent:
                assert name == "dcls"
        assert ("input" in found["conv1d"]) == (form == "input")
        same(found, "conv1d", 3e-6)


@pytest.mark.skipif(not any(peers.PEERS_PATH.glob("dcls-*")), reason="dcls is not installed: benchmarks/peers.sh")
def test_dcls_agrees_to_its_small_constant() -> None:
    work = make_workload(DelayCell(2, 30, 5, 6, 0.2, 8))
    same({n: delay_peers.TASKS[n](work).common() for n in ("dcls", "conv1d")}, "conv1d", 1e-6)


def test_loops_agree() -> None:
    """The scatter loop is Ranvier's loop with axonal delays: the same spikes, and gradients of the three parameters."""
    work = make_workload(DelayCell(2, 40, 6, 10, 0.1, 7, "loop"))
    found = {name: delay_peers.TASKS[name](work).common() for name in ("ranvier-eager", "scatter-loop")}
    assert torch.equal(found["ranvier-eager"]["output"], found["scatter-loop"]["output"])
    same(found, "ranvier-eager", 1e-4)
    without = delay_peers.TASKS["ranvier-eager-no-delay"](work).common()
    assert "delay" not in without and not torch.equal(without["output"], found["ranvier-eager"]["output"])


def test_loops_of_other_kinds_run_and_learn_their_delays() -> None:
    work = make_workload(DelayCell(2, 40, 6, 10, 0.1, 7, "loop"))
    shapes = {}
    for kind in ("dendritic", "synaptic"):
        found = delay_peers.TASKS[f"ranvier-numba-{kind}"](work).common()
        assert found["output"].sum() > 0 and found["delay"].any() and found["weight"].any()
        shapes[kind] = tuple(found["delay"].shape)
    assert shapes == {"dendritic": (10,), "synaptic": (10, 10)}


def test_one_tap_is_the_rounded_delay() -> None:
    task = delay_peers.TASKS["ranvier-eager-one-tap"](make_workload(DelayCell(2, 40, 6, 10, 0.1, 7, "loop")))
    assert list(task.wanted) == ["w_in", "weight"]
    assert set(task.run().unique().tolist()) == {0.0, 1.0}


def test_a_cell_and_its_text() -> None:
    assert DelayCell.parse("16,500,140,256,5%,25") == DelayCell(16, 500, 140, 256, 0.05, 25)
    assert DelayCell.parse("2,3,4,5,0.5,6,loop").names == delays.LOOP
    assert str(DelayCell(2, 3, 4, 5, 0.5, 6, "input")) == "B2 T3 C4 H5 0.5 taps 6 input"
    assert len({str(cell) for cell in delays.grid()}) == len(delays.grid()) == 14
    for text in ("", "1,2,3,4,0.1", "1,2,3,4,0.1,0", "1,2,3,4,0.1,5,backward", "1,2,3,4,0.1,x"):
        with pytest.raises(ValueError, match=r".+"):
            DelayCell.parse(text)
        with pytest.raises(SystemExit):
            delays.parse_options(["--cell", text])


def test_one_cell_as_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Without dcls, which is then null with the way to install it."""
    monkeypatch.setattr(delays, "limit_threads", lambda _: None)  # the process is not the benchmark's
    monkeypatch.setattr(delay_peers, "PEERS_PATH", tmp_path)
    monkeypatch.setattr(peers, "PEERS_PATH", tmp_path)

    def refuse(name: str, install: str) -> Any:
        raise peers.Absent(f"{name} does not import; {install}")

    monkeypatch.setattr(delay_peers, "needs", refuse)
    page = tmp_path / "page.md"
    page.write_text(f"before\n{delays.BEGIN}\nold\n{delays.END}\nafter\n")
    options = ["--cell", "3,20,8,6,10%,5", "--rounds", "2", "--budget", "5", "--no-memory", "--page", str(page)]
    assert delays.main([*options, "--json", "--threads", str(torch.get_num_threads())]) == 0
    found = json.loads(capsys.readouterr().out)
    (cell,) = found["cells"]
    assert [cell[key] for key in ("B", "T", "C", "H", "rate", "taps", "form")] == [3, 20, 8, 6, 0.1, 5, "forward"]
    assert set(cell["ms"]) == set(cell["forward_ms"]) == set(cell["mb"]) == set(delays.NAMES)
    assert cell["ms"]["ranvier-numba"] > 0 and cell["forward_ms"]["conv1d"] > 0
    assert cell["ms"]["dcls"] is None and "pip install" in cell["reasons"]["dcls"]
    assert cell["ms"]["scatter-loop"] is None and cell["reasons"]["scatter-loop"] == "is a loop"
    text = page.read_text()
    assert "old" not in text and "| B3 T20 C8 H6 0.1 taps 5" in text and "dcls: DCLS.construct.modules does" in text
    assert "scatter-loop" not in text and text.startswith("before\n") and text.endswith("\nafter\n")
    page.write_text("no place")
    with pytest.raises(SystemExit, match="no place for the tables"):
        delays.write_page(page, found)


def test_what_fails_is_null(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Workload) -> delay_peers.Task:
        raise RuntimeError("no such kernel")

    monkeypatch.setitem(delay_peers.TASKS, "conv1d", broken)
    cell = DelayCell(3, 20, 8, 6, 0.1, 5)
    every: Any = {name: delay_peers.TaskContestant(name) for name in delays.NAMES}
    entry = measure_cell(cell, every, ["ranvier-numba", "conv1d"], budget_s=2, rounds=1)
    assert entry["reasons"]["conv1d"] == "failed: RuntimeError: no such kernel"
    assert entry["ms"]["conv1d"] is None and entry["ms"]["ranvier-numba"] is not None


def test_memory_is_that_of_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that needs 64 MB for a moment, of which nothing is left afterwards."""

    class Costly(delay_peers.Task):
        def step(self) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
            if len(self.upstream) == 300:
                torch.zeros(2**24).fill_(1.0)
            return self.upstream, ()

    monkeypatch.setitem(
        delay_peers.TASKS, "dcls", lambda w: Costly(lambda: torch.zeros(1), torch.from_numpy(w.upstream), {})
    )
    mb = delays.peak_mb("dcls", DelayCell(1, 300, 2, 2, 0.1, 5))
    if mb is None:
        pytest.skip("the system does not let a peak be forgotten")
    assert 60 < mb < 75


def test_a_process_that_fails_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delays.sys, "executable", "/bin/false")
    found, reasons = delays.measure_memory(DelayCell(1, 5, 2, 2, 0.1, 5), ["conv1d"], 1)
    assert found == {} and reasons == {"conv1d": "memory not measured: status 1"}
