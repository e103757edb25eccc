"""The example in docs/har.md runs as it stands, only for fewer epochs and windows."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "har.md"


@pytest.mark.skipif(not PAGE.is_file(), reason="the documentation is not installed")
@pytest.mark.skipif(find_spec("seglearn") is None, reason="seglearn is not installed (pip install 'ranvier[har]')")
def test_the_example_runs(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.S)
    short, changed = re.subn(r"range\(20\)", "range(1)", code)
    short, fewer = re.subn(r"stride=1000.0", "stride=5000.0", short)
    assert changed == fewer == 1
    done = subprocess.run([sys.executable, "-c", short], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert 0.15 < float(done.stdout) < 1  # seven exercises: chance is 0.14
