"""Spiking motifs: the model against written-out sums and torch's convolutions, its alignment, detectors, learning, and
the sweep that goes on where it was.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from scipy.stats import norm

import ranvier as rv
from ranvier.errors import ConfigError, DataError, RunError
from ranvier.experiments import motifs, override
from ranvier.experiments.motif_model import (
    Setting,
    correlation_kernels,
    delayed_sum,
    detect,
    draw_kernels,
    draw_onsets,
    draw_spikes,
    evidence,
    learn_kernels,
    recovery,
    strongest_taps,
    threshold,
)
from ranvier.networks import Delay

QUIET = Console(quiet=True)
DOCS = Path(__file__).resolve().parents[1] / "docs" / "experiments"
# Kernels so strong that nothing is left to chance, and few motifs.
TINY = Setting(
    neurons=24, delays=9, motifs=4, excitability=8.0, density=0.1, steps=150, trials=3, p_spike=1e-4, p_motif=0.01
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rasters(setting: Setting, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = generator(seed)
    kernels = draw_kernels(setting, g)
    onsets = draw_onsets(setting, g)
    return kernels, onsets, draw_spikes(setting, onsets, kernels, g)


def test_delayed_sum_and_its_gradient_are_those_of_a_convolution() -> None:
    spikes = torch.rand(20, 2, 3, generator=generator()) < 0.3
    weights = torch.randn(3, 4, 5, generator=generator(1), dtype=torch.float64, requires_grad=True)
    seed = torch.randn(24, 2, 4, generator=generator(2), dtype=torch.float64)
    dense = torch.nn.functional.conv_transpose1d(spikes.permute(1, 2, 0).double(), weights).permute(2, 0, 1)
    ours = delayed_sum(spikes, weights)
    torch.testing.assert_close(ours, dense, rtol=1e-12, atol=1e-12)
    (expected,) = torch.autograd.grad((dense * seed).sum(), weights)
    (found,) = torch.autograd.grad((ours * seed).sum(), weights)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_kernels_are_rare_large_values_under_an_envelope_each_with_its_dip() -> None:
    s = Setting(neurons=7, delays=31, motifs=5, density=0.2)
    found = draw_kernels(s, generator(3)).numpy()
    drawn = 4.0 * torch.randn(5, 7, 31, generator=generator(3)).numpy().astype(np.float64)
    t = np.arange(31) / 30
    large = np.where(drawn > 4.0 * norm.ppf(0.8), drawn, 0.0) * np.exp(-t / 0.4) * (1 - np.exp(-t / 0.05))
    for b in range(5):
        for a in range(7):
            whole = np.convolve(large[b, a], [1.0, -0.8, -0.2])
            np.testing.assert_allclose(found[b, a], whole[1:32], atol=2e-6)


def test_a_motif_makes_spikes_exactly_at_its_delays_and_ends_within_the_raster() -> None:
    s = Setting(neurons=3, delays=6, motifs=2, steps=60, trials=2, p_spike=1e-9, p_motif=0.02)
    kernels = torch.zeros(2, 3, 6)
    kernels[0, 0, 0] = kernels[0, 2, 5] = kernels[1, 1, 3] = 60.0  # certain
    onsets = torch.zeros(60, 2, 2, dtype=torch.bool)
    onsets[10, 0, 0] = onsets[54, 1, 0] = onsets[20, 1, 1] = True
    spikes = draw_spikes(s, onsets, kernels, generator())
    assert spikes.nonzero().tolist() == [[10, 0, 0], [15, 0, 2], [23, 1, 1], [54, 1, 0], [59, 1, 2]]
    many = draw_onsets(replace(s, p_motif=0.5), generator())
    assert many[:55].any(0).all() and many[54].any() and not many[55:].any()


def test_spikes_have_the_odds_of_all_motifs_under_way() -> None:
    s = Setting(neurons=1, delays=3, motifs=2, steps=5, trials=40_000, p_spike=0.1)
    kernels = torch.tensor([[[1.0, 2.0, -1.0]], [[0.5, 0.0, 1.5]]])
    onsets = torch.zeros(5, 40_000, 2, dtype=torch.bool)
    onsets[1, :, 0] = onsets[2, :, 1] = True
    rate = draw_spikes(s, onsets, kernels, generator()).double().mean((1, 2)).numpy()
    odds = math.log(0.1 / 0.9) + np.array([0.0, 1.0, 2.0 + 0.5, -1.0 + 0.0, 1.5])
    expected = 1 / (1 + np.exp(-odds))
    assert np.all(np.abs(rate - expected) < 4.5 * np.sqrt(expected * (1 - expected) / 40_000))


def test_evidence_is_the_written_out_sum() -> None:
    spikes = torch.rand(12, 2, 3, generator=generator()) < 0.3
    kernels = torch.randn(2, 3, 4, generator=generator(1))
    found = evidence(spikes, kernels)
    assert found.shape == (12, 2, 2)
    for t in range(12):
        for d in range(2):
            for b in range(2):
                sum_ = sum(
                    float(spikes[t + k, d, a]) * float(kernels[b, a, k])
                    for a in range(3)
                    for k in range(4)
                    if t + k < 12
                )
                assert float(found[t, d, b]) == pytest.approx(sum_, abs=1e-5)


def test_evidence_is_a_layer_of_synaptic_delays_that_answers_when_the_motif_has_ended() -> None:
    kernels, _, spikes = rasters(TINY)
    layer = delayed_sum(spikes, kernels.flip(2).transpose(0, 1))  # delay D - 1 - d
    torch.testing.assert_close(evidence(spikes, kernels), layer[TINY.delays - 1 :], rtol=1e-5, atol=1e-4)


class Sum(rv.Neuron):
    """Gives out its current; a threshold on it makes the detector's spikes."""

    output = "real"
    v = rv.State(0.0)

    def step(self, v: Any, current: Any, p: Any) -> Any:
        v = v * 0.0 + current
        return v, v


def test_a_network_of_dense_connections_with_delays_is_the_detector() -> None:
    kernels, _, spikes = rasters(replace(TINY, neurons=6, steps=40))
    last = TINY.delays - 1
    by_tap = rv.Network(dt=1.0)
    x, h = by_tap.input(6), by_tap.population(Sum(4), name="h")
    for d in range(last + 1):
        by_tap.connect(x, h, rv.Dense(weight=kernels[:, :, d]), delay=float(last - d), name=f"tap{d}")
    padded = torch.cat([spikes.float(), torch.zeros(last, TINY.trials, 6)])
    with torch.no_grad():
        found = by_tap.eval()(padded).output[last:]
    torch.testing.assert_close(found, evidence(spikes, kernels), rtol=1e-5, atol=1e-4)

    # with one tap per pair, a single connection with a delay of its own per pair
    single = strongest_taps(kernels)
    weight, tap = single.max(2)
    by_pair = rv.Network(dt=1.0)
    x, h = by_pair.input(6), by_pair.population(Sum(4), name="h")
    delay = Delay(max=float(last), kind="synaptic", init=(last - tap).float(), learn=False)
    by_pair.connect(x, h, rv.Dense(weight=weight, delay=delay), name="pairs")
    with torch.no_grad():
        found = by_pair.eval()(padded).output[last:]
    torch.testing.assert_close(found, evidence(spikes, single), rtol=1e-5, atol=1e-4)


def test_the_threshold_takes_as_many_as_there_are() -> None:
    values = torch.tensor([0.1, 0.9, 0.5, 0.7, 0.3, 0.2]).view(6, 1, 1)
    onsets = torch.tensor([False, True, True, False, False, False]).view(6, 1, 1)
    assert 0.5 <= threshold(values, 2) < 0.7
    found = detect(values, onsets)
    assert (found.hits, found.detected, found.onsets) == (0.5, 2, 2)
    assert detect(values, onsets, above=0.4).hits == 1.0 and detect(values, onsets, above=0.4).detected == 3
    assert detect(torch.zeros(6, 1, 1), onsets).detected == 0  # ties are no detections
    with pytest.raises(DataError, match="0 of 6 places are onsets"):
        detect(values, onsets & False)


@pytest.mark.parametrize("seed", range(4))
def test_a_tiny_instance_is_detected_completely_and_a_step_beside_it_nothing(seed: int) -> None:
    s = replace(TINY, neurons=100, excitability=12.0)
    g = generator(seed)
    kernels = draw_kernels(s, g)
    onsets = torch.zeros(s.steps, s.trials, s.motifs, dtype=torch.bool)
    for n in range(9):  # one at a time, so that nothing covers another
        onsets[15 * n, torch.arange(3), (n + torch.arange(3)) % 4] = True
    spikes = draw_spikes(s, onsets, kernels, g)
    right = detect(evidence(spikes, kernels), onsets)
    assert right.hits == 1.0 and right.detected == right.onsets == 27
    for shift in (-1, 1):
        assert detect(evidence(spikes, kernels.roll(shift, 2)), onsets).hits == 0.0


def test_at_the_papers_size_the_bars_are_met_and_the_controls_detect_nothing() -> None:
    found = motifs.compare(Setting(), seed=0, controls=True)
    hits = found["hits"]
    assert (found["neurons"], found["delays"], found["motifs"]) == (128, 31, 233)
    assert 0.94 <= hits["hdsnn"] <= 0.97 and 0.72 <= hits["corr"] <= 0.83
    assert 0.94 <= hits["carried"] <= 0.97 and 0.92 <= found["precision"] <= 0.98
    assert hits["corr"] < hits["single"] < hits["hdsnn"]
    assert max(hits[k] for k in ("rate", "wrong", "early", "late")) < 0.01
    assert hits["hdsnn"] == motifs.compare(Setting(), seed=0)["hits"]["hdsnn"]


def test_a_kernel_without_delays_detects_nothing_even_where_its_dips_do_not_cancel_its_spikes() -> None:
    kernels, onsets, spikes = rasters(Setting())
    for with_delays in (kernels.clamp(min=0), correlation_kernels(Setting(), kernels)):
        without = with_delays.mean(2, keepdim=True).expand_as(kernels)
        assert detect(evidence(spikes, without), onsets).hits < 0.03
        assert detect(evidence(spikes, with_delays), onsets).hits > 0.7


def test_correlation_and_strongest_taps() -> None:
    kernels = torch.tensor([[[0.0, 3.0, -2.4], [1.0, 0.0, 2.0]]])
    assert strongest_taps(kernels).tolist() == [[[0.0, 3.0, 0.0], [0.0, 0.0, 2.0]]]
    p = correlation_kernels(Setting(p_spike=0.2), kernels)
    assert float(p[0, 0, 0]) == pytest.approx(0.2) and float(p[0, 0, 1]) == pytest.approx(1 / (1 + 4 * math.exp(-3)))


def test_learning_recovers_the_kernels_and_detects_with_them() -> None:
    s = Setting(neurons=20, delays=7, motifs=3, density=0.1, steps=400, trials=4, p_spike=0.01, p_motif=0.02)
    kernels, onsets, spikes = rasters(s, 1)
    losses: list[float] = []
    learned = learn_kernels(s, kernels, generator(7), 150, 0.2, lambda _, loss: losses.append(loss))
    match = recovery(learned, kernels)
    assert match["cosine"] > 0.93 and match["best"] == 1.0 and abs(match["control"]) < 0.3
    assert len(losses) == 150 and losses[-1] < losses[0]
    given = detect(evidence(spikes, kernels), onsets).hits
    assert detect(evidence(spikes, learned), onsets).hits > given - 0.05 and given > 0.3
    assert recovery(kernels.flip(0), kernels)["best"] < 1.0


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("neurons", 0, "neurons must be at least 1, got 0"),
        ("p_motif", 0.0, "p_motif must be a probability between 0 and 1"),
        ("density", 1.0, "density must be a probability"),
        ("steps", 30, "a motif of 31 steps does not fit into a raster of 30"),
    ],
)
def test_wrong_settings_are_named(field: str, value: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(Setting(), **{field: value})


def test_a_setting_without_effect_is_refused(tmp_path: Path) -> None:
    config = override(motifs.defaults(), ["neuron=LIF"])
    with pytest.raises(ConfigError, match=r"model\.neuron has no effect on the experiment motifs"):
        motifs.sweep(config, tmp_path / "run", QUIET)
    assert not (tmp_path / "run").exists()


def test_a_killed_sweep_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = override(motifs.defaults(), ["epochs=3", "training.seed=4"])
    scans = {"neurons": (8,), "delays": (5,), "motifs": (3,)}
    compare, calls = motifs.compare, []

    def counted(*arguments: Any, **named: Any) -> dict[str, Any]:
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(arguments)
        return compare(*arguments, **named)

    def sweep(folder: str, overwrite: bool = False) -> dict[str, Any]:
        found = motifs.sweep(config, tmp_path / folder, QUIET, overwrite, seeds=2, base=TINY, scans=scans)
        return found | {"runs": [{k: v for k, v in r.items() if k != "cpu_seconds"} for r in found["runs"]]}

    whole = sweep("whole")
    with monkeypatch.context() as patch:
        patch.setattr(motifs, "compare", counted)
        with pytest.raises(KeyboardInterrupt):
            sweep("cut")
        assert len(json.loads((tmp_path / "cut" / "results.json").read_text())["runs"]) == 3
        assert not (tmp_path / "cut" / "metrics.json").exists()
    assert sweep("cut") == whole and len(whole["runs"]) == 8
    base = [r for r in whole["runs"] if "recovery" in r]
    assert [r["seed"] for r in base] == [4, 5]
    assert whole["mean"]["hdsnn"] == pytest.approx(np.mean([r["hits"]["hdsnn"] for r in base]))
    assert whole["sd"]["corr"] == pytest.approx(np.std([r["hits"]["corr"] for r in base], ddof=1))
    assert set(motifs.DETECTORS) <= set(whole["mean"])
    assert motifs.scanned(TINY, whole["runs"], "neurons", "corr")[0] == (
        8,
        [r["hits"]["corr"] for r in whole["runs"] if r["neurons"] == 8],
    )
    metrics = json.loads((tmp_path / "cut" / "metrics.json").read_text())
    assert metrics["hdsnn"] == whole["mean"]["hdsnn"] and metrics["experiment"] == "motifs"
    assert (tmp_path / "cut" / "motifs.png").read_bytes().startswith(b"\x89PNG")
    with np.load(tmp_path / "cut" / "kernels.npz") as file:
        assert file["learned"].shape == file["true"].shape == (4, 24, 9)
    rows = [t.row_count for t in motifs.tables(whole)]
    assert rows == [len(motifs.DETECTORS), 3, 6]

    monkeypatch.setattr(motifs, "compare", lambda *_, **__: pytest.fail("compared again"))
    assert sweep("whole") == whole
    with pytest.raises(RunError, match=r"training\.lr: 0\.2 -> 0\.1"):
        motifs.sweep(override(config, ["lr=0.1"]), tmp_path / "whole", QUIET, seeds=2, base=TINY, scans=scans)


def test_the_documents_figures_are_those_of_its_raw_results_and_meet_the_bars() -> None:
    if not DOCS.exists():
        pytest.skip("the installed package has no docs; the checkout's are compared")
    raw = json.loads((DOCS / "motifs.json").read_text())
    text = (DOCS / "motifs.md").read_text()
    base = Setting(**raw["setting"])
    assert base == Setting() and raw["seeds"] == 5
    again = motifs.summary(base, raw["runs"])
    assert again["mean"] == pytest.approx(raw["mean"]) and again["sd"] == pytest.approx(raw["sd"])
    for name, words in motifs.DETECTORS.items():
        assert f"| {words} | {100 * raw['mean'][name]:.1f} ± {100 * raw['sd'][name]:.1f} |" in text, name
    for axis in motifs.SCANS:
        both = [motifs.scanned(base, raw["runs"], axis, d) for d in ("hdsnn", "corr")]
        for (value, hd), (_, corr) in zip(*both, strict=True):
            assert f"| {axis} {value} | {100 * np.mean(hd):.1f} | {100 * np.mean(corr):.1f} |" in text
    assert 0.94 <= raw["mean"]["hdsnn"] <= 0.97 and 0.72 <= raw["mean"]["corr"] <= 0.83
