"""Every family learns from real pictures, resumes, and becomes an engine that makes torch's picture."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

pytestmark = pytest.mark.slow
STEPS = 50


@pytest.fixture(scope="module")
def rows(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    output = tmp_path_factory.mktemp("walk") / "walk.json"
    script = [sys.executable, str(ROOT / "bench" / "walk.py"), "--small", "--steps", str(STEPS)]
    done = subprocess.run(
        [*script, "--data", str(data_dir), "-o", str(output)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {row["family"]: row for row in json.loads(output.read_text())["rows"]}


@pytest.mark.parametrize("family", ["pix2pix", "cyclegan", "discogan", "ugatit"])
class TestWalk:
    def test_losses_are_finite_and_move(self, rows: dict[str, dict[str, Any]], family: str) -> None:
        first, last = rows[family]["first"], rows[family]["last"]
        losses = [name for name in last if name.endswith("_loss")]
        assert {"g_loss", "d_loss"} <= set(losses)
        assert all(math.isfinite(last[name]) and last[name] != first[name] for name in losses)

    def test_training_goes_on_where_it_was_left(self, rows: dict[str, dict[str, Any]], family: str) -> None:
        assert rows[family]["last"]["step"] == rows[family]["steps"] == STEPS + STEPS // 10

    def test_engine_makes_torchs_picture_under_both_runtimes(
        self, rows: dict[str, dict[str, Any]], family: str
    ) -> None:
        assert len(rows[family]["engines"]) == (1 if family == "pix2pix" else 2)
        for engine in rows[family]["engines"]:
            assert engine["parity"]["samples"] >= 4
            assert max(engine["parity"][f"{name}_max_abs"] for name in ("openvino", "onnxruntime")) <= 2e-4
            assert engine["runtimes_differ_by_grey_levels"] <= 1

    def test_translated_picture_has_its_inputs_size_and_is_not_flat(
        self, rows: dict[str, dict[str, Any]], family: str
    ) -> None:
        assert all(engine["translated_like_picture"] for engine in rows[family]["engines"])
        assert all(engine["contrast"] > 1 for engine in rows[family]["engines"])
