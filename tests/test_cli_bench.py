"""gantrt bench: its numbers agree with each other, its gates close, and its report is whole."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gantrt
import numpy as np
import pytest
from clips import write_clip
from gantrt.baseline import slower
from gantrt.bench_report import trace
from gantrt.cli import main
from gantrt.errors import UsageError
from gantrt.gates import parse_gates
from gantrt.measure import EngineTimes, FrameTimes, Settings, compare, repeat
from tiny_networks import write_bfloat16, write_generator

QUICK = ["--duration", "0.02", "--iterations", "5", "--warmup-ms", "1", "--frame-size", "48x64"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANTRT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return write_generator(tmp_path / "tiny.onnx")


def bench(engine: Path, *arguments: str) -> int:
    return main(["bench", "--engine", str(engine), *QUICK, *arguments])


def test_report_has_two_blocks_in_trtexecs_words(engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(engine) == 0
    network, _, frame = capsys.readouterr().out.partition("=== Frame")
    for line in ("Throughput:", "Latency: min = ", "Enqueue Time: n/a", "H2D Latency: n/a", "CPU Compute Time: min = "):
        assert line in network
    for line in ("D2H Latency: n/a", "Total Host Walltime:", "Total CPU Compute Time:", "percentile(99%) = "):
        assert line in network
    for word in ("end to end", "pre", "engine", "post", "Jitter", "First frame", "Load", "fps", "48x64"):
        assert word in frame


def test_json_is_whole_and_consistent(engine: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    assert bench(engine, "--json", str(path), "--precision", "fp32") == 0
    report = json.loads(path.read_text(), parse_constant=pytest.fail)  # no NaN, no Infinity
    assert report["schema"] == "gantrt.bench/1"
    assert set(report) >= {"environment", "engine", "settings", "metrics", "throughput", "memory", "warnings"}
    assert report["engine"]["precision"] == "fp32"
    assert len(report["engine"]["sha256"]) == 64
    assert report["settings"]["frame_size"] == [48, 64]
    assert report["settings"]["network_size"] == [16, 24]
    network, frame = report["metrics"]["engine"], report["metrics"]["frame"]
    assert network["enqueue"] is network["h2d"] is network["d2h"] is None  # a CPU has none: null, not 0
    for summary in (network["latency"], network["compute"], *(frame[k] for k in ("e2e", "pre", "engine", "post"))):
        assert summary["unit"] == "ms"
        assert summary["n"] >= 5
        assert (
            0 < summary["min"] <= summary["p50"] <= summary["p90"] <= summary["p95"] <= summary["p99"] <= summary["max"]
        )
    assert frame["e2e"]["mean"] >= frame["pre"]["mean"] + frame["engine"]["mean"] + frame["post"]["mean"]
    assert frame["first_frame_ms"] > 0
    assert frame["load_ms"] > 0
    assert report["throughput"]["engine_qps"] <= 1e3 / network["compute"]["mean"] * 1.01
    assert report["memory"]["host_rss_mb"] > 10


def test_json_to_stdout_is_nothing_but_json(engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(engine, "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["schema"] == "gantrt.bench/1"


def test_report_is_what_its_schema_says(engine: Path, tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((Path(gantrt.__file__).parent / "bench.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    path = tmp_path / "report.json"
    assert bench(engine, "--against", "openvino", "--json", str(path)) == 0
    report = json.loads(path.read_text())
    validator.validate(report)
    write_clip(tmp_path / "clip.mp4", range(4))
    assert bench(engine, "--source", str(tmp_path / "clip.mp4"), "--json", str(path)) == 0
    validator.validate(json.loads(path.read_text()))
    for harm in ({"schema": "gantrt.bench/2"}, {"metrics": {}}, {"surprise": 1}, {"memory": {"host_rss_mb": "much"}}):
        with pytest.raises(jsonschema.ValidationError):
            validator.validate(report | harm)


def test_a_second_start_is_told_apart_from_the_first(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.json"

    def start() -> dict[str, Any]:
        assert bench(engine, "--json", str(path)) == 0
        frame = json.loads(path.read_text())["metrics"]["frame"]
        return {key: frame[key] for key in ("load_from_cache", "load_again_ms")}

    first, second = start(), start()
    assert (first["load_from_cache"], second["load_from_cache"]) == (False, True)
    assert first["load_again_ms"] > 0
    monkeypatch.setenv("GANTRT_CACHE", "off")
    assert start() == {"load_from_cache": False, "load_again_ms": None}


def test_layers_that_compute_in_another_precision_are_told(engine: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    assert bench(engine, "--precision", "fp32", "--json", str(path)) == 0
    report = json.loads(path.read_text())
    assert report["engine"]["arithmetic"] == {"fp32": 2}
    assert not [text for text in report["warnings"] if "multiply" in text]


def test_a_clip_is_measured_against_its_own_rate(
    engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report.json"
    write_clip(tmp_path / "clip.mp4", range(6))
    assert bench(engine, "--source", str(tmp_path / "clip.mp4"), "--json", str(path)) == 0
    frame = json.loads(path.read_text())["metrics"]["frame"]
    assert frame["source_fps"] > 0
    assert frame["decode"]["n"] == 6
    assert 0 <= frame["deadline_misses"] <= frame["e2e"]["n"]
    assert "took longer than that allows" in capsys.readouterr().out


def test_frames_that_miss_the_sources_rate_are_counted() -> None:
    runs = np.array([[0.0, 10.0], [10.0, 31.0], [31.0, 50.0]])
    times = FrameTimes(runs, None, 1, 1)  # type: ignore[arg-type]
    assert times.misses(50) == 1  # 20 ms a frame
    assert times.misses(100) == 2


def test_slower_than_the_baseline_is_a_closed_gate(
    engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report.json"
    assert bench(engine, "--json", str(path)) == 0
    report = json.loads(path.read_text())
    assert slower(report, report, 0) == []
    report["throughput"]["frame_fps"] *= 1e3
    report["metrics"]["engine"]["compute"]["p50"] /= 1e3
    report["metrics"]["frame"]["e2e"]["p50"] *= 1e3
    path.write_text(json.dumps(report))
    assert bench(engine, "--baseline", str(path), "--tolerance", "50%") == 6
    said = capsys.readouterr().err
    assert "frames per second" in said
    assert "engine p50" in said
    assert "frame p50" not in said  # that one became faster
    (tmp_path / "other.json").write_text("[]")
    assert bench(engine, "--baseline", str(tmp_path / "other.json")) == 2
    assert bench(engine, "--baseline", str(tmp_path / "absent.json")) == 2
    with pytest.raises(SystemExit, match="2"):
        bench(engine, "--tolerance", "0.05")


def test_against_names_every_contestant_and_their_pictures_agree(engine: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    peers = "onnxruntime,openvino,openvino-fp32"
    assert bench(engine, "--against", peers, "--precision", "fp32", "--json", str(path)) == 0
    against = json.loads(path.read_text())["against"]
    assert list(against) == ["gantrt", *peers.split(",")]
    assert against["gantrt"]["times_ours"] == 1
    for name in ("onnxruntime", "openvino-fp32"):
        assert against[name]["max_abs_difference"] < 1e-5  # both in float32
        assert against[name]["times_ours"] > 0


def test_against_a_library_that_cannot_run_it_is_an_error_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(write_bfloat16(tmp_path / "b.onnx"), "--against", "onnxruntime") == 3
    assert "--against onnxruntime: it does not run" in capsys.readouterr().err


def test_signals_still_arrive_after_openvino_peers_came_and_went(engine: Path) -> None:
    """OpenVINO's CPU plugin swaps the signal stack; see engines.openvino.core. SIGSEGV (-11) if that went wrong."""
    words = ["bench", "--engine", str(engine), *QUICK, "--against", "openvino,openvino-fp32", "-q"]
    script = (
        "import faulthandler, gc, os, signal; faulthandler.enable()\n"
        "signal.signal(signal.SIGINT, lambda *_: print('it came'))\n"
        "from gantrt.cli import main\n"
        f"for _ in range(2): assert main({words!r}) == 0; gc.collect()\n"
        "os.kill(os.getpid(), signal.SIGINT)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("it came\n")


def test_against_a_dynamic_engine(tmp_path: Path) -> None:
    path = write_generator(tmp_path / "dynamic.onnx", dynamic=True)
    assert bench(path, "--against", "onnxruntime,openvino", "--size", "32x40") == 0


@pytest.mark.parametrize("batch", ["1", "2"])
def test_streams_and_batches_are_measured_too(tmp_path: Path, batch: str) -> None:
    assert bench(write_generator(tmp_path / "g.onnx", batch=int(batch)), "--streams", "2") == 0


def test_export_times_has_trtexecs_keys(engine: Path, tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    assert bench(engine, "--export-times", str(path)) == 0
    runs = json.loads(path.read_text())
    keys = (
        "startEnqMs endEnqMs startH2dMs endH2dMs startComputeMs endComputeMs startD2hMs endD2hMs h2dMs computeMs d2hMs"
    )
    assert all(set(run) == {*keys.split(), "latencyMs"} for run in runs)
    starts = [run["startComputeMs"] for run in runs]
    assert starts[0] == 0
    assert starts == sorted(starts)


def test_plot_is_a_picture(engine: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "times.png"
    assert bench(engine, "--plot", str(path)) == 0
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_gate_closes_after_the_report_is_written(
    engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report.json"
    assert bench(engine, "--fail-if", "p99>1us,engine.fps<1", "--json", str(path)) == 6
    captured = capsys.readouterr()
    assert path.exists()
    assert "p99>1us" in captured.err
    assert "engine.fps" not in captured.err  # that one held
    assert bench(engine, "--fail-if", "p99 > 100 s", "--fail-if", "engine.median>100s,fps<0.001") == 0


def test_gates_are_parsed_strictly() -> None:
    (gate,) = parse_gates(["p99>12ms"])
    assert (gate.block, gate.metric, gate.above, gate.limit) == ("frame", "p99", True, 12.0)
    assert [gate.limit for gate in parse_gates(["engine.mean>500us, p50<2s"])] == [0.5, 2000.0]
    assert not parse_gates(["fps<30"])[0].trips({"frame": {"fps": 30.0}})
    assert parse_gates(["fps<30fps"])[0].trips({"frame": {"fps": 29.9}})
    for wrong in (
        "p99>12",
        "p98>1ms",
        "p99=1ms",
        "p99>1ms or so",
        "fps<30ms",
        "",
        "p99>-1ms",
        "gpu.p99>1ms",
        "p99>=1ms",
    ):
        with pytest.raises(UsageError, match="p99>12ms"):
            parse_gates([wrong])


def test_requests_that_make_no_sense_have_their_exit_codes(engine: Path, tmp_path: Path) -> None:
    assert bench(engine, "--fail-if", "p99>fast") == 2
    assert bench(engine, "--against", "caffe") == 2
    assert bench(engine, "--fit", "pad") == 2
    assert bench(engine, "--size", "32x32") == 3
    assert bench(tmp_path / "absent.onnx") == 3
    assert bench(engine, "--device", "cuda") == 4
    assert bench(engine, "--source", str(tmp_path / "absent.mp4")) == 5
    with pytest.raises(SystemExit, match="2"):
        bench(engine, "--frame-size", "0x10")


def test_source_may_be_a_picture(engine: Path, tmp_path: Path) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "p.png"), np.zeros((30, 50, 3), np.uint8))
    path = tmp_path / "report.json"
    assert bench(engine, "--source", str(tmp_path / "p.png"), "--json", str(path)) == 0
    assert json.loads(path.read_text())["settings"]["frame_size"] == [30, 50]


def test_repeat_runs_as_long_and_as_often_as_asked() -> None:
    assert len(repeat(lambda: None, Settings(0, 0, 7))) == 7
    begin = time.perf_counter()
    runs = repeat(lambda: None, Settings(0, 0.05, 1))
    assert time.perf_counter() - begin >= 0.05
    assert runs[0, 0] == 0
    assert (runs[:, 1] >= runs[:, 0]).all()


def test_throughput_and_trace_by_hand() -> None:
    times = EngineTimes(np.array([[0.0, 10.0], [10.0, 30.0], [40.0, 50.0]]), batch=2)
    assert times.walltime == 0.05
    assert times.throughput == pytest.approx(3 * 2 / 0.05)  # trtexec: queries / host walltime, times batch
    assert times.compute.median == 10
    assert trace(times)[1]["computeMs"] == 20
    assert trace(times)[1]["h2dMs"] is None


def test_jitter_is_the_spread_of_the_interval_between_results() -> None:
    even = np.array([[0.0, 5.0], [5.0, 15.0], [15.0, 25.0]])
    stages = None
    assert FrameTimes(even, stages, 1, 1).jitter_ms == 0  # type: ignore[arg-type]
    uneven = np.array([[0.0, 5.0], [5.0, 15.0], [15.0, 35.0]])
    assert FrameTimes(uneven, stages, 1, 1).jitter_ms == 5  # type: ignore[arg-type]


def test_contestants_take_turns() -> None:
    order: list[str] = []
    times = compare({name: lambda name=name: order.append(name) for name in "ab"}, Settings(0, 0.15, 1))
    assert len(times["a"]) > 0
    assert len(times["b"]) > 0
    turns = [name for i, name in enumerate(order) if i == 0 or order[i - 1] != name]
    assert len(turns) >= 6  # the first run of each, and at least two turns each
