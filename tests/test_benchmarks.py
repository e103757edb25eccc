"""The harness of the benchmarks: what it measures is what it says, and what is missing is said. No time is asserted."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import contestants, memory, peers, train_step
from benchmarks.load import Others
from benchmarks.measure import measure_cell, plan_rounds
from benchmarks.workload import Cell, Workload, make_workload, tune

CELL = Cell(B=3, T=20, C=12, H=16, rate=0.1)
NAMES = {
    "ranvier-numba",
    "torch-loop",
    "torch-rnn",
    "torch-lstm",
    "norse",
    "snntorch",
    "spikingjelly",
    "spyx",
    "matmul-floor",
}


@pytest.fixture
def work() -> Workload:
    made = make_workload(CELL)
    made.w_in[:] *= 0.2
    return made


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No folder of peers, no environment with Spyx, and neither snnTorch nor Norse."""

    def refuse(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(peers, "PEERS_PATH", tmp_path / "none")
    monkeypatch.setattr(peers, "import_module", refuse)
    return tmp_path / "none" / "python"


# -- the same work ----------------------------------------------------------------------------------------------------


def gradients(layer: peers.Layer, work: Workload) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    output = layer.run(torch.from_numpy(work.x))
    loss = (output * torch.from_numpy(work.upstream)).sum()
    return output.detach(), torch.autograd.grad(loss, layer.parameters)


def test_the_plain_loop_is_ranviers_lif(work: Workload) -> None:
    spikes, grads = gradients(peers.torch_loop(work), work)
    ours, our_grads = gradients(peers.ranvier(work, "eager"), work)
    assert 0.02 < spikes.mean() < 0.5
    assert torch.equal(spikes, ours)
    for a, b in zip(grads, our_grads, strict=True):
        assert a.abs().max() > 0
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(a.abs().max()))


def test_the_plain_loop_against_a_step_by_hand() -> None:
    """One neuron, weight 0.6 a step, no recurrence: spikes and gradient worked out on paper."""
    w_in, w_rec = torch.tensor([[0.6]], requires_grad=True), torch.zeros(1, 1, requires_grad=True)
    spikes = peers.plain_loop(torch.ones(2, 1, 1), w_in, w_rec)
    decay = math.exp(-1 / 20)
    v2 = decay * 0.6 + 0.6
    assert spikes.flatten().tolist() == [0.0, 1.0]
    spikes.sum().backward()
    slope = lambda v: 1 / (1 + 10 * abs(v - 1)) ** 2  # noqa: E731
    # ds1/dw = slope(0.6); the reset of step 1 lowers v2 by ds1/dw
    expected = slope(0.6) + slope(v2) * (1 + decay * (1 - slope(0.6)))
    assert w_in.grad is not None
    assert w_in.grad.item() == pytest.approx(expected, rel=1e-5)


def test_snntorch_and_norse_do_the_same_products(work: Workload) -> None:
    pytest.importorskip("snntorch", reason="snnTorch is not installed (pip install -e .[interop])")
    pytest.importorskip("norse", reason="Norse is not installed (pip install -e .[interop])")
    for build in (peers.snntorch, peers.norse):
        layer = build(work)
        output, grads = gradients(layer, work)
        assert output.shape == (CELL.T, CELL.B, CELL.H)
        assert set(output.unique().tolist()) == {0.0, 1.0}
        assert sorted(tuple(g.shape) for g in grads) == [(CELL.H, CELL.C), (CELL.H, CELL.H)]
        assert all(g.abs().max() > 0 for g in grads)


def test_the_floor_is_the_products(work: Workload) -> None:
    floor = peers.MatmulFloor(work)
    floor.step()
    x, g = torch.from_numpy(work.x).flatten(0, 1), torch.from_numpy(work.upstream).flatten(0, 1)
    torch.testing.assert_close(floor.currents, x @ torch.from_numpy(work.w_in).t())
    torch.testing.assert_close(floor.w_in_grad, g.t() @ x)
    torch.testing.assert_close(floor.w_rec_grad, g.t() @ g)


def test_the_gain_is_tuned() -> None:
    gain = tune(lambda g: min(1.0, g / 40), 0.05)
    assert gain / 40 == pytest.approx(0.05, rel=0.03)


# -- the JSON ---------------------------------------------------------------------------------------------------------


def test_one_cell_as_json(
    nothing_installed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train_step, "limit_threads", lambda _: None)  # the process is not the benchmark's
    monkeypatch.setitem(peers.LAYERS, "ranvier-numba", lambda w: peers.ranvier(w, "eager"))  # compiles nothing
    options = ["--cell", "3,20,12,16,10%", "--json", "--rounds", "2", "--budget", "5"]
    threads = torch.get_num_threads()
    assert train_step.main([*options, "--threads", str(threads), "--jax-python", str(nothing_installed)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"cells", "machine", "versions"} <= set(found)
    (cell,) = found["cells"]
    assert [cell[key] for key in ("B", "T", "C", "H", "rate")] == [3, 20, 12, 16, 0.1]
    assert set(cell["ms"]) == set(cell["forward_ms"]) == NAMES
    absent = {"norse", "snntorch", "spikingjelly", "spyx"}
    for name in NAMES:
        assert (cell["ms"][name] is None) == (name in absent), name
    for name in absent:
        assert cell["forward_ms"][name] is None
        assert any(word in cell["reasons"][name] for word in ("pip install", "peers.sh")), cell["reasons"][name]
    assert set(cell["reasons"]) == absent
    assert all(cell["ms"][n] > 0 and cell["forward_ms"][n] > 0 and cell["rounds"][n] == 2 for n in NAMES - absent)
    assert cell["hidden_rate"]["torch-loop"] == pytest.approx(0.1, abs=0.03)
    assert "torch-rnn" not in cell["hidden_rate"], "it does not spike"


def test_peers_not_asked_for_are_null() -> None:
    every = contestants.make_contestants(Path("nowhere"), 1)
    entry = measure_cell(CELL, every, ["torch-rnn"], budget_s=2, rounds=1)
    assert set(entry["ms"]) == NAMES
    assert [name for name, ms in entry["ms"].items() if ms is not None] == ["torch-rnn"]
    assert set(entry["reasons"]) == NAMES - {"torch-rnn"}


def test_a_peer_that_fails_is_null(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Workload) -> peers.Layer:
        raise RuntimeError("no such kernel")

    monkeypatch.setitem(peers.LAYERS, "torch-lstm", broken)
    every = contestants.make_contestants(Path("nowhere"), 1)
    entry = measure_cell(CELL, every, ["torch-lstm", "torch-rnn"], budget_s=2, rounds=1)
    assert entry["ms"]["torch-lstm"] is None and entry["ms"]["torch-rnn"] is not None
    assert entry["reasons"]["torch-lstm"] == "failed: RuntimeError: no such kernel"


def test_a_peer_that_is_too_slow_is_left_out() -> None:
    with pytest.raises(contestants.Skipped, match="about 9 s per step"):
        contestants.too_slow(9.0, 6.0)
    contestants.too_slow(6.0, 6.0)


def test_rounds_fit_the_budget_the_slowest_first() -> None:
    assert plan_rounds({"a": 1.0, "b": 0.1}, 100.0, 11) == {"a": 11, "b": 11}
    assert plan_rounds({"a": 1.0, "b": 0.1}, 8.2, 11) == {"a": 7, "b": 11}
    assert plan_rounds({"a": 1.0, "b": 0.1}, 3.8, 11) == {"a": 3, "b": 5}
    assert plan_rounds({"a": 5.0, "b": 5.0}, 1.0, 11) == {"a": 1, "b": 1}


@pytest.mark.parametrize("text", ["", "1,2,3,4", "1,2,3,4,5,6", "0,250,140,256,0.05", "32,250,140,256,0", "a,b,c,d,e"])
def test_a_cell_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Cell.parse(text)
    with pytest.raises(SystemExit) as ended:
        train_step.parse_options(["--cell", text])
    assert ended.value.code == 2


def test_results_of_other_code_are_not_continued(tmp_path: Path) -> None:
    about = {"fingerprint": "a", "machine": {"cpu": "x"}, "budget_s": 1.0, "versions": {}, "command": ""}
    path = tmp_path / "results.json"
    done = {**about, "cells": [{"B": 1}]}
    train_step.write_results(path, done)
    assert train_step.read_results(path, about) == done
    assert train_step.read_results(path, {**about, "fingerprint": "b"})["cells"] == []
    train_step.write_results(path, {**about, "cells": [{"B": 1, "others": 0.5}, {"B": 2, "others": 0.01}]})
    assert [entry["B"] for entry in train_step.read_results(path, about)["cells"]] == [2], "the first was disturbed"
    path.write_text("{")
    assert train_step.read_results(path, about)["cells"] == []
    assert train_step.read_results(tmp_path / "none.json", about)["cells"] == []


def test_a_losing_cell_is_marked() -> None:
    ms: dict[str, float | None] = dict.fromkeys(train_step.NAMES, 20.0)
    entry = {**CELL.as_dict(), "ms": {**ms, "ranvier-numba": 10.0, "spyx": 9.0, "matmul-floor": 5.0, "norse": None}}
    assert train_step.losers(entry) == ["spyx"], "the floor is no peer"
    (row,) = train_step.rows({"cells": [entry]}, "ms")
    assert row[0].endswith("LOST")
    assert "9 (0.9×) !" in row
    assert row.count("20 (2×)") == 5
    entry["ms"]["spyx"] = 11.0
    assert train_step.losers(entry) == []


def test_others_are_seen() -> None:
    """A process that burns CPU time is somebody else's work, unless it is named as ours."""
    code = "import time\nend = time.process_time() + 5\nwhile time.process_time() < end: pass"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        try:
            time.sleep(0.2)
            alone, known = Others(), Others([process.pid])
            time.sleep(0.6)
            seen, rest = alone.share(), known.share()
        finally:
            process.kill()
    if seen is None or rest is None:
        pytest.skip("no /proc")
    assert seen > rest, (seen, rest)
    assert 0 <= rest < seen <= 1


def test_the_table_of_a_page_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{train_step.BEGIN}\nold\n{train_step.END}\nafter\n")
    entry = {**CELL.as_dict(), **{kind: dict.fromkeys(train_step.NAMES, 3.0) for kind in ("ms", "forward_ms")}}
    entry |= {"hidden_rate": {}, "reasons": {"spyx": "not here"}, "notes": {}}
    results = {"cells": [entry], "machine": {"cpu": "x", "cores": 2, "threads": 2}, "versions": {"torch": "1"}}
    train_step.write_page(page, {**results, "command": "python -m benchmarks.train_step"})
    text = page.read_text()
    assert text.startswith(f"before\n{train_step.BEGIN}\n") and text.endswith(f"\n{train_step.END}\nafter\n")
    assert "old" not in text and "| B3 T20 C12 H16 0.1 |" in text and "spyx: not here" in text
    page.write_text("no place")
    with pytest.raises(SystemExit, match="no place for the table"):
        train_step.write_page(page, {**results, "command": ""})


# -- memory -----------------------------------------------------------------------------------------------------------


def test_kept_bytes_are_counted_once() -> None:
    """x * x saves its argument twice, exp its result; w and x of the first product are no cost of the layer."""
    x, w = torch.ones(50, 10, 8), torch.ones(8, 8, requires_grad=True)

    def run(sequence: torch.Tensor) -> torch.Tensor:
        current = sequence @ w
        return (current * current).exp()

    saved, held = memory.kept_bytes(peers.Layer(run, [w]), x)
    one = 50 * 10 * 8 * 4
    assert saved == 2 * one, "the product, once, and the exponential"
    assert held is None or held >= 2 * one


def test_memory_of_a_cell(work: Workload) -> None:
    found = memory.measure(work, ("torch-loop", "ranvier-eager"))
    one = CELL.T * CELL.B * CELL.H * 4
    assert found["saved_bytes"]["torch-loop"] >= 2 * one, "spikes and membranes of every step"
    assert found["reasons"] == {}
