"""What derived files in the cache are called: by what they were made from, so that a new source has a new name."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def file_state(path: Path) -> list[Any]:
    """Path, size in bytes and time of last change in ns: differs whenever the content may have changed."""
    status = path.stat()
    return [str(path), status.st_size, status.st_mtime_ns]


def cache_key(made_from: Any) -> str:
    """A name of 32 hexadecimal digits for what was made from ``made_from``, which JSON has to know."""
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:32]
