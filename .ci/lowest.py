"""Print the lowest declared version of every requirement as a pip constraint.

    python3 .ci/lowest.py pyproject.toml interop dev

Each requirement must be of the form ``name>=version``, with an optional marker: anything else has no lowest version.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path


def main(path: str, *extras: str) -> None:
    project = tomllib.loads(Path(path).read_text())["project"]
    requirements = project["dependencies"] + [r for extra in extras for r in project["optional-dependencies"][extra]]
    for requirement in requirements:
        match = re.fullmatch(r"([\w-]+)>=([\w.]+)(?:\s*;.*)?", requirement)
        if match is None:
            sys.exit(f"{path}: {requirement!r} is not of the form name>=version")
        print(f"{match[1]}=={match[2]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
