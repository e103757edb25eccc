"""How the experiments on published sets run."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from .config import Config
from .experiment import train_and_say
from .published_data import prepare


def run_published(config: Config, folder: Path, console: Console, overwrite: bool) -> None:
    """Look for the files of a published set, then train. Raises as :func:`prepare`."""
    prepare(config)
    train_and_say(config, folder, console, overwrite)
