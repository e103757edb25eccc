"""CPU-seconds per second of audio of the inner-ear model, beside the recorded runs of the reference implementation.

python -m benchmarks.cochlea ../shared/data/hd_sample/spoken_digit.flac
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path

import numpy as np

from ranvier.datasets.audio import read_audio
from ranvier.datasets.cochlea import Cochlea

REFERENCE = Path(__file__).resolve().parents[1] / "tests" / "data" / "lauscher_spoken_digit.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()

    sound, rate = read_audio(options.recording)
    seconds = len(sound) / rate
    ear = Cochlea()
    start = time.process_time()
    ear(sound, rate, 0)
    first = time.process_time() - start
    spent, spikes = [], []
    for seed in range(options.repeats):
        start = time.process_time()
        spikes.append(len(ear(sound, rate, seed).times))
        spent.append(time.process_time() - start)
    ours = float(np.median(spent)) / seconds
    runs = json.loads(REFERENCE.read_text("utf-8"))["runs"]
    theirs = float(np.mean([run["cpu_s"] for run in runs])) / seconds
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, {seconds:.3f} s of audio, one thread")
    print(f"first call (compiled code and table loaded or made): {first:.2f} CPU-s")
    spread = f"{min(spent):.3f} to {max(spent):.3f} per call"
    print(f"ours: {ours:.3f} CPU-s per audio second ({spread}), {np.mean(spikes):.0f} spikes")
    count = np.mean([run["total"] for run in runs])
    print(f"lauscher 1.0.1: {theirs:.0f} CPU-s per audio second, {count:.0f} spikes")
    print(f"ratio: {theirs / ours:.0f}")


if __name__ == "__main__":
    main()
