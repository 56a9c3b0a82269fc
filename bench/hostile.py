"""Clips cut at every kilobyte, and at every byte of their first and last: what is left is translated, and must play.

    python bench/hostile.py        # about a minute

The tests take every sixteenth of these cuts.
"""

from __future__ import annotations

import collections
import datetime
import json
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests")]
OUT = ROOT / "bench" / "results" / "hostile.json"


def main() -> None:
    from machine import machine
    from test_hostile_inputs import check_cut, write_noise
    from tiny_networks import write_pointwise

    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        engine = write_pointwise(folder / "copy.onnx")
        for kind in ("mkv", "mp4", "mov", "avi"):
            begin, data = time.monotonic(), write_noise(folder / f"whole.{kind}").read_bytes()
            cuts = sorted({*range(0, len(data), 1024), *range(0, 1024, 16), *range(len(data) - 64, len(data) + 1)})
            ends: collections.Counter[str] = collections.Counter()
            kept: list[int] = []
            for end in cuts:
                code, frames = check_cut(data[:end], folder, kind, engine)
                ends[f"exit {code}, {'kept and plays' if frames else 'nothing to keep'}"] += 1
                kept.append(frames)
            row = {"kind": kind, "bytes": len(data), "cuts": len(cuts), "ends": dict(ends), "most_frames": max(kept)}
            rows.append(row | {"seconds": round(time.monotonic() - begin, 1)})
            print(json.dumps(rows[-1]), flush=True)
    report = {
        "what": "clips cut at every kilobyte and around both ends, translated: exit code 0 or 5, what is kept plays",
        "command": "python bench/hostile.py",
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "rows": rows,
    }
    OUT.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
