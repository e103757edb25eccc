"""Imports between the rooms point one way: experiments -> deploy -> networks -> neurons, experiments -> datasets."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOUNDATION = {"errors", "files"}
"""Modules of the front door that every room may use."""

MAY_IMPORT: dict[str, set[str]] = {
    "neurons": set(),
    "networks": {"neurons"},
    "datasets": set(),
    "deploy": {"networks", "neurons"},
    "experiments": {"deploy", "networks", "neurons", "datasets"},
}


def imported_rooms(source: str, package: tuple[str, ...]) -> set[tuple[str, int]]:
    """The first name below ``ranvier`` that each import statement of ``source`` reaches, with its line.

    ``package`` is the package the source lies in, such as ``("ranvier", "deploy", "targets")``.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            paths = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = base + (tuple(node.module.split(".")) if node.module else ())
            paths = [(*stem, alias.name) for alias in node.names]
        else:
            continue
        for path in paths:
            if path[0] == "ranvier":
                found.add((path[1] if len(path) > 1 else "the whole front door", node.lineno))
    return found


def broken_imports(room: str) -> list[str]:
    broken = []
    for module in sorted((ROOT / room).rglob("*.py")):
        package = ("ranvier", *module.parent.relative_to(ROOT).parts)
        for name, line in sorted(imported_rooms(module.read_text(), package)):
            if name not in MAY_IMPORT[room] | FOUNDATION | {room}:
                broken.append(f"{module.relative_to(ROOT)}:{line} imports {name}")
    return broken


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_point_one_way(room: str) -> None:
    assert (ROOT / room / "__init__.py").exists()
    assert not broken_imports(room)


def test_the_reader_of_imports_sees_every_form() -> None:
    source = """
from ..deploy import quantize
from .. import datasets
from .lif import LIF
import ranvier.experiments.run
import ranvier
from torch import nn
def late():
    from ..networks.dense import Dense
"""
    rooms = {name for name, _ in imported_rooms(source, ("ranvier", "neurons"))}
    assert rooms == {"deploy", "datasets", "neurons", "experiments", "the whole front door", "networks"}
    nested = imported_rooms("from ..c import x\nfrom ...networks import y", ("ranvier", "deploy", "targets"))
    assert {name for name, _ in nested} == {"deploy", "networks"}
