"""The run folder: ``runs/NAME`` and what lies in it.

config.yaml         every setting, and ``format: 1``
graph.json          the network graph and its step programs
model.safetensors   the weights kept
metrics.csv         one row an epoch
metrics.json        written when training has ended: what was reached, ``format: 1``
checkpoints/        Lightning's own state, for resuming: last.ckpt and the one before it
tensorboard/        event files
report.html, c/, verilog/   what `ranvier report` and `ranvier export` add
"""

from __future__ import annotations

import difflib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import ConfigError, RunError
from ..files import atomic_path
from .config import CONFIG_FILE, FORMAT, Config, differences, load_config, save_config

METRICS_FILE = "metrics.json"
HISTORY_FILE = "metrics.csv"
LAST, PREVIOUS = "checkpoints/last.ckpt", "checkpoints/previous.ckpt"


def runs_root() -> Path:
    """Where runs are kept: ``RANVIER_RUNS``, or ``runs`` in the working folder."""
    return Path(os.environ.get("RANVIER_RUNS", "runs"))


def find_run(run: str | Path) -> Path:
    """A run's folder, from its path or its name in ``runs``.

    Raises :class:`RunError`, naming the nearest, if there is none.
    """
    for folder in (Path(run), runs_root() / run):
        if (folder / CONFIG_FILE).is_file():
            return folder
    root = runs_root()
    known = sorted(str(p.parent.relative_to(root)) for p in root.glob(f"**/{CONFIG_FILE}")) if root.is_dir() else []
    close = difflib.get_close_matches(str(run), known, 1, 0.4)
    hint = (
        f"did you mean {close[0]}?"
        if close
        else f"{root} has {', '.join(known[:8])}"
        if known
        else "`ranvier train NAME` makes one"
    )
    raise RunError(f"there is no run {str(run)!r}, neither as a folder nor in {root}; {hint}")


def open_run(folder: Path, config: Config, overwrite: bool = False) -> str:
    """Make or enter a run folder: ``new``, ``unfinished`` (the same settings, to be resumed) or ``finished``.

    Raises:
        RunError: if the folder holds a run with other settings, or files that are no run.
    """
    if overwrite and (folder / CONFIG_FILE).is_file():
        shutil.rmtree(folder)
    if (folder / CONFIG_FILE).is_file():
        other = differences(load_config(folder), config)
        if other:
            shown = "; ".join(other[:4]) + ("; ..." if len(other) > 4 else "")
            raise RunError(
                f"{folder} holds a run with other settings ({shown}); "
                "choose another folder with --run, or replace it with --overwrite"
            )
        return "finished" if (folder / METRICS_FILE).is_file() else "unfinished"
    if folder.exists() and any(p.name != ".lock" for p in folder.iterdir()):
        raise RunError(f"{folder} has files but no {CONFIG_FILE}; it is not a run folder. Choose another with --run")
    save_config(config, folder)
    return "new"


def is_helper() -> bool:
    """Whether this process was started by another one to drive a further device: it trains along and writes nothing."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) > 0


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from training into the same folder; the lock goes with the process, however it ends."""
    if is_helper():
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(f"{folder} is in use by another training") from error
        yield


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write JSON with ``format`` first, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps({"format": FORMAT, **values}, indent=1) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read what :func:`write_json` wrote. Raises :class:`RunError` if it is missing, damaged or of another format."""
    try:
        values = json.loads(path.read_text())
        version = values["format"]
    except FileNotFoundError as error:
        raise RunError(f"{path} does not exist") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged ({error!r})") from error
    if version != FORMAT:
        raise RunError(
            f"{path} has format {version!r}; this release reads format {FORMAT}. Use the release that wrote it"
        )
    return values


def resumed_runs(path: Path, config: Config, overwrite: bool) -> list[dict[str, Any]]:
    """The ``runs`` of the results at ``path`` to go on from, none where there is nothing or with ``overwrite``; writes
    ``config`` beside them.

    Raises:
        ConfigError: they were made with other settings.
    """
    runs: list[dict[str, Any]] = []
    if path.exists() and not overwrite:
        changed = differences(load_config(path.parent), config)
        if changed:
            raise ConfigError(f"{path.parent} holds other settings ({'; '.join(changed)}); --overwrite starts anew")
        runs = read_json(path)["runs"]
    save_config(config, path.parent)
    return runs
