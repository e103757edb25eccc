"""The command line.

It reads arguments and prints; what it does is in ``ranvier.experiments`` and ``ranvier.datasets``, imported when
needed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ranvier.errors import RanvierError

app = typer.Typer(
    help="Ranvier: train recurrent spiking networks and run the same bits on a microcontroller and an FPGA.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Make, convert and look at event files.", no_args_is_help=True)
app.add_typer(data_app, name="data")
plot_app = typer.Typer(help="Pictures of a run.", no_args_is_help=True)
app.add_typer(plot_app, name="plot")

log = Console(stderr=True, highlight=False, soft_wrap=True)
out = Console(highlight=False)
_debug = False

Run = Annotated[str, typer.Argument(help="A run: its folder, or its name in runs/.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout; everything else goes to stderr.")]
Target = Annotated[list[str], typer.Option("--target", "-t", help="c, onnx or verilog; may be given more than once.")]
Targets = Annotated[
    list[str] | None,
    typer.Option("--target", "-t", help="c, onnx or verilog; may be given more than once. By default all."),
]


@app.callback()
def _options(debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False) -> None:
    global _debug
    _debug = debug


@contextmanager
def _clean_errors() -> Iterator[None]:
    """An error of ours is one line on stderr and exit code 1."""
    try:
        yield
    except RanvierError as error:
        if _debug:
            raise
        print(f"ranvier: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        print("ranvier: interrupted", file=sys.stderr)
        raise typer.Exit(130) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None


def _print(values: dict[str, Any], as_json: bool, title: str) -> None:
    if as_json:
        print(json.dumps(values))
        return
    table = Table("", "", title=title, show_header=False)
    for name, value in values.items():
        table.add_row(name.replace("_", " "), _shown(value))
    out.print(table)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{k}: {_shown(v)}" for k, v in value.items())
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return (
        "-" if value is None else f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    )


@app.command()
def train(
    name: Annotated[str, typer.Argument(help="The experiment; `ranvier info` lists them.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[key=value]...", help="Settings; `ranvier info --settings` lists them."),
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", help="Name or path of the run folder; by default runs/NAME.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete what the run folder holds and start anew.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an unfinished run and its own settings; fail if there is none.")
    ] = False,
) -> None:
    """Train an experiment into a run folder.

    An unfinished run with the same settings is resumed from its last finished epoch.
    """
    with _clean_errors():
        from ranvier.errors import ConfigError, RunError
        from ranvier.experiments.config import CONFIG_FILE, load_config, override
        from ranvier.experiments.registry import find_experiment
        from ranvier.experiments.runs import runs_root

        experiment = find_experiment(name)
        folder = Path(run) if run and os.sep in run else runs_root() / (run or name)
        config = override(experiment.defaults(), settings or [])
        if resume:
            if overwrite:
                raise ConfigError("--resume and --overwrite exclude each other")
            if not (folder / CONFIG_FILE).is_file() and not any(folder.glob(f"*/{CONFIG_FILE}")):
                raise RunError(f"there is nothing to resume in {folder}; leave out --resume to start it")
            if (folder / CONFIG_FILE).is_file() and not settings:
                config = load_config(folder)
        experiment.run(config, folder, log, overwrite)


@app.command()
def sweep(
    name: Annotated[str, typer.Argument(help="The experiment: har.")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[key=value]...", help="Settings that are not searched.")
    ] = None,
    trials: Annotated[int, typer.Option(help="Search until so many trials have ended.", min=1)] = 200,
    storage: Annotated[
        str | None, typer.Option(help="Address of a data base that machines share; by default SQLite in the folder.")
    ] = None,
    fold: Annotated[int, typer.Option(help="The fold whose people are put aside.", min=0)] = 0,
    run: Annotated[
        str | None, typer.Option("--run", help="Name or path of the folder; by default runs/NAME-sweep.")
    ] = None,
) -> None:
    """Search an experiment's settings with Optuna, on people who are in no test. Started again, it goes on."""
    with _clean_errors():
        from ranvier.experiments.registry import find_experiment
        from ranvier.experiments.runs import runs_root
        from ranvier.experiments.sweep import run_sweep

        folder = Path(run) if run and os.sep in run else runs_root() / (run or f"{name}-sweep")
        experiment = find_experiment(name)
        out.print(run_sweep(experiment.defaults(), settings or [], folder, trials, log, storage, fold), soft_wrap=True)


@app.command()
def compress(
    run: Run,
    bits: Annotated[int, typer.Option(help="Bits of the weights, 2 to 8; 0: as they are.")] = 8,
    prune: Annotated[float, typer.Option(help="Share of the weights, the smallest, to take out.")] = 0.0,
    prune_neurons: Annotated[float, typer.Option(help="Share of the neurons, the idlest, to take out.")] = 0.0,
    epochs: Annotated[int | None, typer.Option(min=1, help="By default a fifth of the run's.")] = None,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate; by default a fifth of the run's.")] = None,
    folder: Annotated[str | None, typer.Option("--out", help="The new run; by default RUN-4bit and the like.")] = None,
    as_json: Json = False,
) -> None:
    """Train a finished run further with rounded weights, and fewer of them, into a run of its own."""
    with _clean_errors():
        from ranvier.experiments.compression import compress_run

        found = compress_run(run, log, bits, prune, prune_neurons, epochs, lr, folder)
        _print(found, as_json, f"{run}, compressed")


@app.command("eval")
def evaluate(
    run: Run,
    split: Annotated[str, typer.Option(help="test or validation")] = "test",
    as_json: Json = False,
) -> None:
    """Run a trained network over its test set. It needs the run folder and the data only."""
    with _clean_errors():
        from ranvier.experiments.workflow import eval_run

        _print(eval_run(run, split, log), as_json, f"{run} on its {split} set")


@app.command()
def export(
    run: Run,
    target: Targets = None,
    as_json: Json = False,
    folder: Annotated[Path | None, typer.Option("--out", help="Where to write; by default RUN/TARGET.")] = None,
    table: Annotated[
        bool,
        typer.Option(
            "--table",
            help="Compare each with the integer model too, on the whole test set, measure latency and memory, and "
            "write the table as RUN/edge.md and edge.json. Exit code 1 if anything differs.",
        ),
    ] = False,
    samples: Annotated[
        int | None,
        typer.Option(min=1, help="With --table: run Verilog on the first so many test samples; by default 50."),
    ] = None,
    sensor: Annotated[
        str | None,
        typer.Option(
            help="The device takes the sensor's own 16-bit numbers: what one of them is in the recordings' unit, one "
            "number or one per axis with commas (spsw: one scale for acceleration, one for rotation)."
        ),
    ] = None,
) -> None:
    """Quantise a trained network to integers and write it as C99, ONNX and SystemVerilog."""
    with _clean_errors():
        from ranvier.deploy import TARGETS
        from ranvier.errors import ConfigError
        from ranvier.experiments.edge import edge_run, page
        from ranvier.experiments.workflow import export_run

        try:
            lsb = [float(v) for v in sensor.split(",")] if sensor else []
        except ValueError:
            raise ConfigError(f"--sensor takes numbers with commas, got {sensor!r}") from None
        names = target or list(TARGETS)
        if not table:
            _print(export_run(run, names, log, folder, lsb), as_json, f"{run}, exported")
            return
        if folder is not None:
            raise ConfigError("--table measures what lies in the run folder; leave out --out")
        found = edge_run(run, names, log, lsb, samples)
        if as_json:
            print(json.dumps(found))
        else:
            out.print(page(found), soft_wrap=True, markup=False)
        if not found["passed"]:
            raise typer.Exit(1)


@app.command()
def verify(
    run: Run,
    target: Target,
    samples: Annotated[
        int | None,
        typer.Option(min=1, help="Compare only the first so many test samples (by default all, 50 in Verilog)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run the exported program in a real tool and count every spike in which it differs from the integer model.

    Exit code 1 if any does.
    """
    with _clean_errors():
        from ranvier.experiments.workflow import verify_run

        found = verify_run(run, target, log, samples)
        _print(found, as_json, f"{run}, verified")
        if not found["passed"]:
            raise typer.Exit(1)


@app.command()
def nir(
    run: Run,
    file: Annotated[Path | None, typer.Option("--out", help="The file to write; by default RUN/nir/NAME.nir.")] = None,
    step: Annotated[
        float | None,
        typer.Option(help="What a step takes in the file, in seconds; by default the run's dt. For snnTorch: 1e-4."),
    ] = None,
    integrator: Annotated[str, typer.Option(help="How the reader integrates: euler or exact.")] = "euler",
    reset: Annotated[
        str,
        typer.Option(
            help="Resets that subtract: circuit (nodes that any reader runs alike) or note (plain LIF nodes and a note "
            "in the file)."
        ),
    ] = "circuit",
    gain: Annotated[
        str, typer.Option(help="Where it stands what an input adds: in the node, or in the weights (for Norse).")
    ] = "node",
) -> None:
    """Write a run's network, in float, as a NIR file for other simulators and neuromorphic chips."""
    with _clean_errors():
        from ranvier.deploy import write_nir
        from ranvier.experiments.runs import find_run
        from ranvier.experiments.workflow import artefact_name
        from ranvier.networks import load_network

        folder = find_run(run)
        path = file or folder / "nir" / f"{artefact_name(folder)}.nir"
        net = load_network(folder)
        out.print(str(write_nir(net, path, step=step, integrator=integrator, reset=reset, gain=gain)), soft_wrap=True)


@app.command()
def report(run: Run) -> None:
    """Write report.html into the run folder: one file, no network needed to read it."""
    with _clean_errors():
        from ranvier.experiments.report import report_run

        out.print(str(report_run(run, log)), soft_wrap=True)


@app.command()
def demo(
    run: Annotated[str, typer.Option("--run", help="Name or path of the run folder.")] = "demo",
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[key=value]...", help="Settings over those of the demo.")
    ] = None,
) -> None:
    """Train on spoken digits, export to C and Verilog, verify both, and write a report:

    a few minutes on two CPU cores.
    """
    with _clean_errors():
        from ranvier.experiments.demo import run_demo

        if not run_demo(run, settings or [], log, out):
            raise typer.Exit(1)


@app.command()
def info(
    run: Annotated[str | None, typer.Argument(help="A run to describe; without it, versions and experiments.")] = None,
    settings: Annotated[
        bool, typer.Option("--settings", help="List every setting, its default and its meaning.")
    ] = False,
) -> None:
    """Versions, tools and experiments; or what a run folder holds."""
    with _clean_errors():
        from ranvier.experiments import about

        if settings:
            about.settings(out, run)
        elif run is None:
            about.installation(out)
        else:
            about.run(out, run)


@plot_app.command("delays")
def plot_delays(
    run: Run,
    picture: Annotated[Path | None, typer.Option("--out", help="The PNG to write; by default RUN/delays.png.")] = None,
) -> None:
    """Histograms of a run's delays in whole steps, before and after learning."""
    with _clean_errors():
        from ranvier.experiments.delay_plots import plot_delays as plot

        out.print(str(plot(run, picture)), soft_wrap=True)


@data_app.command("make-digits")
def make_digits(
    folder: Annotated[Path, typer.Option("--out", help="Folder to write ranvier_digits_train.h5 and _test.h5 into.")],
    train_takes: Annotated[int, typer.Option(help="Takes per training voice and word.", min=1)] = 1,
    test_takes: Annotated[int, typer.Option(help="Takes per held-out voice and word.", min=1)] = 1,
    train_voices: Annotated[int | None, typer.Option(help="Use only so many training voices.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="The same seed makes the same set.", min=0)] = 2026,
    workers: Annotated[int | None, typer.Option(help="Processes; by default one per CPU.", min=1)] = None,
) -> None:
    """Make Ranvier Digits, of any size: speech by espeak-ng, spikes by the inner-ear model."""
    with _clean_errors():
        from ranvier.datasets.digits import make_digits as make

        made = make(
            folder,
            train_takes=train_takes,
            test_takes=test_takes,
            train_voices=train_voices,
            seed=seed,
            workers=workers,
        )
        for name, file in made["files"].items():
            out.print(f"{folder / name}: {file['samples']} samples, {file['bytes'] / 1e6:.1f} MB", soft_wrap=True)


@data_app.command("from-audio")
def from_audio(
    folder: Annotated[Path, typer.Argument(help="One folder a class; WAV and FLAC of any rate.")],
    target: Annotated[Path, typer.Option("--out", help="The HDF5 file to write, in SHD's layout.")],
    speaker_pattern: Annotated[
        str | None, typer.Option(help="Regular expression whose group 'speaker' names a file's speaker.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the inner ear's random fibres.", min=0)] = 0,
    workers: Annotated[int | None, typer.Option(help="Processes; by default one per CPU.", min=1)] = None,
) -> None:
    """Turn your own recordings into spikes with the inner-ear model."""
    with _clean_errors():
        from ranvier.datasets.audio import from_audio as convert

        written = convert(folder, target, speaker_pattern=speaker_pattern, seed=seed, workers=workers)
        out.print(f"{target}: {written.samples} samples, {written.spikes:,} spikes", soft_wrap=True)


@data_app.command("info")
def data_info(
    file: Annotated[Path, typer.Argument(help="An HDF5 file in SHD's layout.")], as_json: Json = False
) -> None:
    """Check an event file as a whole and say what is in it."""
    with _clean_errors():
        from ranvier.experiments.about import event_file

        _print(event_file(file), as_json, str(file))


if __name__ == "__main__":
    app()
