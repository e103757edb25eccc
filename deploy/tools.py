"""Running outside programs: compilers and simulators."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from shutil import which

from ..errors import ToolError


def find_tool(*names: str) -> str | None:
    """The first of ``names`` on the path or beside this Python, or None."""
    scripts = sysconfig.get_path("scripts")
    return next((found for n in names if (found := which(n) or which(n, path=scripts))), None)


def run_tool(
    command: Sequence[str | Path],
    folder: str | Path,
    stdin: bytes | None = None,
    timeout: float = 1800,
    env: dict[str, str] | None = None,
) -> bytes:
    """Run ``command`` in ``folder`` and return its stdout. Raises :class:`ToolError` with the end of its messages if it
    fails.
    """
    shown = " ".join(str(c) for c in command)
    try:
        done = subprocess.run(
            [str(c) for c in command],
            cwd=folder,
            input=stdin or b"",
            capture_output=True,
            timeout=timeout,
            check=False,
            env=None if env is None else os.environ | env,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolError(f"{shown} (in {folder}) did not run: {error}") from error
    if done.returncode != 0:
        tail = (done.stderr + b"\n" + done.stdout).decode(errors="replace").strip()[-2000:]
        raise ToolError(f"{shown} (in {folder}) failed with {done.returncode}:\n{tail}")
    return done.stdout
