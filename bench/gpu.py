"""Everything that wants a GPU, in one command: builds the kernels for this GPU, checks them, measures them.

    python bench/gpu.py [--out DIR] [--quick]

Needs nvcc, cmake, pybind11, torch with CUDA, numpy, onnx, opencv and pytest, with xdist if it can be had; no network,
under ten minutes on 16 cores. Each step's output goes to DIR/<step>.log, results to bench/results/ and a copy of
them to DIR.
A step that fails does not stop the others; the exit code is 1 if any did.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def steps(quick: bool) -> dict[str, tuple[list[str], int]]:
    """Name to command and its limit in seconds."""
    python = sys.executable
    build = ROOT / "build" / "gpu"
    configure = ["cmake", "-S", str(ROOT), "-B", str(build), "-DGANTRT_CUDA=ON", "-DCMAKE_CUDA_ARCHITECTURES=native"]
    pytest = [python, "-m", "pytest", "-q", "-m", "needs_cuda", "-p", "no:cacheprovider"]
    if importlib.util.find_spec("xdist"):
        pytest += ["-n", "8"]
    all_steps = {
        "configure": ([*configure, f"-DPython_EXECUTABLE={python}", "-DCMAKE_CUDA_FLAGS=-Xptxas=-v"], 60),
        "build": (["cmake", "--build", str(build), "-j", str(os.cpu_count() or 2)], 180),
        "tests": ([*pytest, "-k", "not compiled_networks", *map(str, gpu_tests())], 240),
        "kernels": ([python, str(ROOT / "bench" / "kernels.py"), *(["--quick"] if quick else [])], 300),
        "pixels": ([python, str(ROOT / "bench" / "pixels_cuda.py")], 60),
        "pipeline": ([python, str(ROOT / "bench" / "pipeline.py"), "--frames", "100" if quick else "500"], 180),
    }
    training = [python, str(ROOT / "bench" / "training.py"), "--full", "--device", "cuda", "--no-compile"]
    all_steps["training"] = ([*training, "--family", "cyclegan", "ugatit", "--seconds", "5"], 150)
    all_steps["engines"] = ([python, str(ROOT / "bench" / "engines.py"), "--device", "cuda", "--duration", "2"], 240)
    sanitizer = shutil.which("compute-sanitizer")
    for tool in ("memcheck", "racecheck", "initcheck") if sanitizer else ():
        command = [
            str(sanitizer),
            "--tool",
            tool,
            "--error-exitcode",
            "9",
            python,
            str(ROOT / "bench" / "sanitized.py"),
        ]
        all_steps[tool] = (command, 120)
    return all_steps


def gpu_tests() -> list[Path]:
    """The others may import libraries that a machine for measuring has no use for."""
    return [path for path in sorted((ROOT / "tests").glob("test_*.py")) if "needs_cuda" in path.read_text()]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu-results")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", help="names of steps; all without it")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    paths = [str(ROOT / "python"), str(ROOT / "training"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "GANTRT_REQUIRE": "cuda"}
    failed = []
    for name, (command, limit) in steps(args.quick).items():
        if args.only and name not in args.only:
            continue
        begin = time.perf_counter()
        with (args.out / f"{name}.log").open("wb") as log:
            try:
                code = subprocess.run(
                    command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, timeout=limit, check=False
                ).returncode
            except (subprocess.TimeoutExpired, OSError) as error:
                code = str(error)[:200]
        last = (args.out / f"{name}.log").read_text(errors="replace").strip().splitlines()[-1:]
        outcome = "ok" if code == 0 else f"failed: {code}"
        print(f"{name:10} {time.perf_counter() - begin:6.1f} s  {outcome}  {' '.join(last)}", flush=True)
        if code != 0:
            failed.append(name)
    results = ROOT / "bench" / "results"
    for result in [*results.glob("*_nvidia_*.json"), *results.glob("*_cuda*.json")]:
        shutil.copy(result, args.out)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
