"""The example in the README runs as it stands, only for fewer epochs, and every file it links to exists."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.S)


def run_example(code: str, folder: Path) -> None:
    """Run it for one epoch instead of twenty, and see that it ends by printing that no spike differs."""
    short, changed = re.subn(r"range\(20\)", "range(1)", code)
    assert changed == 1
    done = subprocess.run([sys.executable, "-c", short], capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "0\n"
    assert (folder / "digits" / "digits.c").exists()


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler: sudo apt install gcc")
def test_the_example_runs_and_no_spike_differs(tmp_path: Path) -> None:
    assert len(BLOCKS) == 2
    run_example(BLOCKS[0], tmp_path)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler: sudo apt install gcc")
def test_a_neuron_of_ones_own_takes_the_place_of_lif(tmp_path: Path) -> None:
    own = BLOCKS[0].replace("words =", BLOCKS[1] + "\n\nwords =", 1)
    used = own.replace('rv.LIF(128, learn=["tau_mem"])', 'Leaky(128, learn=["tau"])')
    assert used != own
    run_example(used, tmp_path)


def test_every_link_leads_to_a_file() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"
