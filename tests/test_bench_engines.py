"""bench/engines.py's parts: the processor's limit, the multiplications counted, the goals judged, the table."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from gantrt.threads import usable_cpus

BENCH = Path(__file__).resolve().parent.parent / "bench"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))


def row(family: str, **milliseconds: float) -> dict[str, Any]:
    contestants = [
        {"name": name.replace("_", " "), "precision": "fp32", "median_ms": value, "of_peak": 0.9}
        for name, value in milliseconds.items()
    ]
    return {"family": family, "network": family, "size": 256, "peak_gops": {"fp32": 100.0}, "contestants": contestants}


def test_goals_are_judged_by_ratios_and_by_milliseconds() -> None:
    from goals import judged

    rows = [
        row("cyclegan", gantrt=100, OpenVINO_by_hand=100, ONNX_Runtime_by_hand=260, torch_eager=240),
        row("pix2pix", gantrt=100, OpenVINO_by_hand=139),
        row("discogan", gantrt=1.2, gantrt_int8=0.9, OpenVINO_by_hand=1.1),
    ]
    met = {goal["goal"]: goal["met"] for goal in judged(rows)}
    assert met == {
        "cyclegan: gantrt over OpenVINO by hand": True,
        "cyclegan: gantrt over ONNX Runtime by hand": True,
        "cyclegan: gantrt over torch eager": False,
        "cyclegan: gantrt, of the measured peak": True,
        "pix2pix: gantrt over OpenVINO by hand": False,
        "discogan: gantrt over OpenVINO by hand": False,
        "discogan: ms a frame, at the default precision": False,
        "discogan: ms a frame, at the fastest precision": True,
    }


def test_table_has_a_column_for_whoever_took_part() -> None:
    pytest.importorskip("matplotlib")
    from report import THEMES, draw, table

    machine = {"cpu": "a CPU", "cores": 2}
    rows = [row("pix2pix", gantrt=123.4, torch_eager=56.78), row("discogan", gantrt=1.234)]
    report = {"rows": rows, "machine": machine, "date": "2026-01-01T00:00"}
    lines = table(report).splitlines()
    assert lines[0] == "| median ms a frame | gantrt | torch eager |"
    assert lines[2] == "| pix2pix, 256×256 | 123 | 56.8 |"
    assert lines[3] == "| discogan, 256×256 | 1.23 | – |"
    for theme in THEMES.values():
        assert len(draw(report, theme).axes) == 2


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_peak_counts_two_operations_for_every_lane_of_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    import peak

    monkeypatch.setattr(peak, "_ROUNDS", 1000)
    measured = peak.Peak()
    if not measured.calls:
        pytest.skip("no AVX2 here")
    wide = "avx512" in " ".join(_features())
    lanes = {"fp32": 16, "bf16": 32, "int8": 64} if wide else {"fp32": 8, "int8": 32}
    for precision, call in measured.calls.items():
        assert call() == 2 * lanes[precision] * 12 * 1000 * usable_cpus()
        assert measured.rate(precision, 2.0) == call() / 2e-3
    assert "fp32" in measured.calls


def _features() -> list[str]:
    from gantrt._core import cpu_features

    return cpu_features()


def test_multiplications_of_discogan_by_hand() -> None:
    pytest.importorskip("onnxruntime")
    from gantrt_training.peers import Network
    from networks import generator, multiplications

    source = generator("discogan")
    network = Network(source.family, source.generator, source.norm_mode)
    down = [(3, 64, 32), (64, 128, 16), (128, 256, 8), (256, 512, 4)]  # 4x4 kernels: from, to, side of the output
    convolutions = sum(16 * a * b * side**2 for a, b, side in down)
    transposed = sum(16 * b * a * side**2 for a, b, side in down)  # the same layers backwards: side of the input
    bottleneck = 2 * 16 * 512 * 100
    assert multiplications(network, 64) == convolutions + transposed + bottleneck


def test_scripts_are_where_the_page_says() -> None:
    page = (BENCH.parent / "docs" / "measuring.md").read_text()
    for script in ("engines", "report", "throughput", "openvino_ways", "peak"):
        assert f"bench/{script}.py" in page
        assert (BENCH / f"{script}.py").exists()
    assert sys.path[0] == str(BENCH)
