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


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler: sudo apt install gcc")
def test_the_example_runs_and_no_spike_differs(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    assert len(blocks) == 1
    short, changed = re.subn(r"range\(20\)", "range(1)", blocks[0])
    assert changed == 1
    done = subprocess.run([sys.executable, "-c", short], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("step(v, current;")
    assert lines[-1] == "0"
    assert (tmp_path / "leaky" / "leaky.c").exists()


def test_every_link_leads_to_a_file() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"
