"""Make tests/data/lauscher_spoken_digit.json: the referee's spikes for one recording, four runs, as counts.

lauscher (LGPL-2.1) is not a dependency of Ranvier. Install it into an environment of its own and name its interpreter:

    python3 -m venv /tmp/lauscher && /tmp/lauscher/bin/pip install lauscher==1.0.1
    python -m benchmarks.lauscher_reference /tmp/lauscher/bin/python ../shared/data/hd_sample/spoken_digit.flac

A run takes about five CPU-minutes and 7 GB; it is not seeded, so the counts come out a little different each time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import resource
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile

CHANNELS, STEPS_PER_S, LONGEST_STEPS = 700, 24000, 2400
OUT = Path(__file__).resolve().parents[1] / "tests" / "data" / "lauscher_spoken_digit.json"


def count(times: np.ndarray, units: np.ndarray) -> dict[str, list[int] | int]:
    """Spikes per channel, and how many intervals within a channel last 0, 1, ... steps of 1/24000 s (last: or more)."""
    order = np.lexsort((times, units))
    steps = np.rint(np.asarray(times, np.float64)[order] * STEPS_PER_S).astype(np.int64)
    channel = np.asarray(units)[order].astype(np.int64)
    intervals = np.diff(steps)[np.diff(channel) == 0]
    return {
        "total": len(steps),
        "per_channel": np.bincount(channel, minlength=CHANNELS).tolist(),
        "intervals": np.bincount(np.minimum(intervals, LONGEST_STEPS), minlength=LONGEST_STEPS + 1).tolist(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", help="interpreter of an environment that has lauscher")
    parser.add_argument("recording", type=Path)
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()

    sound = soundfile.info(options.recording)
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for run in range(options.runs):
            path = Path(folder) / f"{run}.npz"
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            command = ["-m", "lauscher", str(options.recording), str(path), "--num_channels", str(CHANNELS), "-j", "1"]
            single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
            subprocess.run([options.python, *command], check=True, env={**os.environ, **single})
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            with np.load(path) as spikes:
                times, units = spikes["arr_0"]
            runs.append({**count(times, units), "cpu_s": round(cpu, 1)})
            print(f"run {run}: {runs[-1]['total']} spikes, {cpu:.0f} CPU-s")
    write(options.recording, sound.frames / sound.samplerate, runs, options.out)


def write(recording: Path, seconds: float, runs: list[dict], out: Path) -> None:
    made = {
        "by": "python -m benchmarks.lauscher_reference, lauscher 1.0.1",
        "machine": platform.machine(),
        "recording": recording.name,
        "sha256": hashlib.sha256(recording.read_bytes()).hexdigest(),
        "seconds": seconds,
        "runs": runs,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(made) + "\n", "utf-8")


if __name__ == "__main__":
    main()
