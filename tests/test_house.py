"""The front door, the errors, atomic files, and the packaging that names every room."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ranvier as rv
from ranvier import errors
from ranvier.files import atomic_path

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ROOMS = ("neurons", "networks", "datasets", "deploy", "experiments")


def test_every_public_name_resolves_and_is_listed() -> None:
    for name in rv.__all__:
        assert getattr(rv, name) is not None, name
    assert set(rv.__all__) <= set(dir(rv))


def test_version_is_the_declared_one() -> None:
    assert rv.__version__ == PYPROJECT["project"]["version"]


def test_unknown_name_is_refused_by_name() -> None:
    with pytest.raises(AttributeError, match="'ranvier' has no attribute 'LIFF'"):
        _ = rv.LIFF


def test_import_is_lazy() -> None:
    code = "import sys, ranvier.errors, ranvier.files; print('torch' in sys.modules, 'ranvier.neurons' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_exports_what_it_lists(room: str) -> None:
    module = importlib.import_module(f"ranvier.{room}")
    assert module.__doc__
    for name in getattr(module, "__all__", ()):
        assert hasattr(module, name), f"ranvier.{room}.__all__ names {name}, which does not exist"


def test_errors_share_one_base() -> None:
    kinds = [k for k in vars(errors).values() if isinstance(k, type)]
    assert len(kinds) >= 8
    assert all(issubclass(k, errors.RanvierError) and k.__doc__ for k in kinds)


def test_atomic_path_replaces_only_on_success(tmp_path: Path) -> None:
    target = tmp_path / "made" / "a.json"
    with atomic_path(target) as path:
        assert path.parent == target.parent and path.suffix == ".json" and not target.exists()
        path.write_text("old")
    assert target.read_text() == "old"
    with pytest.raises(RuntimeError, match="half way"), atomic_path(target) as path:
        path.write_text("new, but")
        raise RuntimeError("half way")
    assert target.read_text() == "old"
    assert [p.name for p in target.parent.iterdir()] == ["a.json"]


def test_atomic_path_that_was_never_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a.json"):
        pass
    assert list(tmp_path.iterdir()) == []


def _packages_on_disk() -> set[str]:
    found = {"ranvier"}
    for room in ROOMS:
        for init in (ROOT / room).rglob("__init__.py"):
            found.add(".".join(("ranvier", *init.parent.relative_to(ROOT).parts)))
    return found


def test_packaging_names_every_package() -> None:
    """The list is explicit; a folder forgotten there would be missing from the wheel and present in every checkout."""
    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == _packages_on_disk()


def test_every_module_lies_in_a_package() -> None:
    for room in ROOMS:
        for module in (ROOT / room).rglob("*.py"):
            assert (module.parent / "__init__.py").exists(), f"{module} is in no package and would not be installed"
