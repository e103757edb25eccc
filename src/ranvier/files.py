"""Writing files so that a crash leaves either the old file or the new one, never half of one; and where derived files
are kept.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; if the block ends without an error, that file replaces ``path``.

    Parents are made. The file is flushed to the disk before it is renamed and the rename is flushed after it, so that
    not even a power cut shows a half-written file. If the block raises, the temporary file is removed and ``path``
    stays as it was. The temporary name keeps the suffix, since several writers choose their format by it.

    Args:
        path: the file to write.

    Raises:
        FileNotFoundError: the block ended without having written the temporary file.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(6)}.tmp{target.suffix}")
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(target)
        _flush(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def cache_folder() -> Path:
    """Where derived files are kept: ``RANVIER_CACHE``, else ``XDG_CACHE_HOME/ranvier``, else ``~/.cache/ranvier``."""
    if own := os.environ.get("RANVIER_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "ranvier"


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
