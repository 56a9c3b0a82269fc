"""How good the demo's digits are: a judge that saw real digits only grades what `gantrt demo -o DIR` left.

    python bench/demo.py DIR

Writes bench/results/demo.json: the share of 300 held-out digits that are called what they should be, of real ones too,
since no judge is perfect.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from datetime import date
from pathlib import Path

import cv2
import numpy as np
import torch
from gantrt_training import digits

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))
import digit_classifier  # noqa: E402

SHOULD_BE = {"six_to_nine": 9, "nine_to_six": 6, "six_to_nine_and_back": 6, "nine_to_six_and_back": 9}


def main() -> None:
    home = Path(sys.argv[1])
    judge = digit_classifier.train()
    grades = {f"real_{digit}": share(judge, digits.read_sheet(f"test_{digit}"), digit) for digit in (6, 9)}
    for folder, digit in SHOULD_BE.items():
        pictures = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in sorted((home / folder).glob("*.png"))]
        grades[folder] = share(judge, np.stack(pictures), digit)
    report = {
        "what": "share of held-out digits, real or translated, that the judge calls what they should be",
        "command": "make demo && python bench/demo.py demo",
        "date": date.today().isoformat(),
        "machine": {"platform": platform.platform(), "cores": os.cpu_count(), "torch": torch.__version__},
        "grades": grades,
    }
    (HERE / "results" / "demo.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(grades, indent=2))


def share(judge: torch.nn.Module, tiles: np.ndarray, digit: int) -> float:
    return round(digit_classifier.share_called(judge, tiles, digit), 4)


if __name__ == "__main__":
    main()
