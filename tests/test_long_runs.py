"""Short versions of bench/kills.py and bench/soak.py, which run for minutes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


def bench(script: str, output: Path, **options: int) -> dict[str, Any]:
    """What it writes. Fails if it found a fault."""
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    command = [sys.executable, ROOT / "bench" / script, *words, "-o", output]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    report: dict[str, Any] = json.loads(output.read_text())
    return report


def test_kill_9_leaves_no_half_file_and_no_rubbish(tmp_path: Path) -> None:
    report = bench("kills.py", tmp_path / "kills.json", kills=12, interrupts=4, steps=4)
    assert report["kills"] == 12
    assert {name: row["kills"] for name, row in report["commands"].items()} == dict.fromkeys(report["commands"], 2)
    assert report["temporary_files"]["after_the_next_run"] == []
    assert report["interrupts"]["runs"] == 4


@pytest.mark.plain_core
def test_nothing_grows_or_is_mixed(tmp_path: Path) -> None:
    report = bench("soak.py", tmp_path / "soak.json", frames=1500, cycles=30, submits=100)
    assert report["stream"]["in_the_file"] == 1500
    assert report["threads"]["frames"] == 800
    assert report["threads"]["mixed"] == 0


def test_a_leak_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    import soak

    for leak, handles, sound in ((0, 0, True), (100, 0, False), (0, 1, False)):
        watch = soak.Watch(100)
        watch.samples = [(i, 100.0 + leak * i / 100, 10 + handles * i // 20, 5) for i in range(100)]
        assert watch.report()["sound"] is sound
