"""Strangers' bytes, chosen by libFuzzer: the targets of tests/fuzz/, each in a process of its own, for some minutes.

    pip install atheris
    python bench/fuzz.py --minutes 12            # all targets in turn; or make fuzz
    python bench/fuzz.py --minutes 2 --targets foreign doors --core build/fuzz_core/gantrt   # their rows anew

Python code is instrumented by atheris. The C++ core is where --core names the folder of one that clang built with
-DGANTRT_SANITIZE=fuzzer-no-link,address,undefined (make fuzz does); without, `doors` sees only what it returns.
A fault does not end a run: it is counted by where it is from, and its first input is kept in build/fuzz/found/TARGET.
Inputs that reached something new stay in build/fuzz/corpus/TARGET for the next run.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import re
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "fuzz"
sys.path[:0] = [str(ROOT / "tests")]

_LONGEST = {
    "onnx_file": 4096,
    "engine": 4096,
    "foreign": 8192,
    "checkpoint": 8192,
    "doors": 256,
}  # bytes of an input; else 1024
_SLOWEST = 20  # seconds an input may take


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=12.0, help="of all targets together")
    parser.add_argument("--targets", nargs="+", help="default: all")
    parser.add_argument("--core", type=Path, help="folder of an instrumented _core")
    parser.add_argument("--json", type=Path, default=ROOT / "bench" / "results" / "fuzz.json")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args, rest = parser.parse_known_args()
    if args.one:
        fuzz_one(args.one, rest)
        return
    from fuzz import list_targets

    targets = args.targets or list_targets()
    seconds = args.minutes * 60 / len(targets)
    # Only the target that calls the core: OpenVINO and torch do not run under the sanitiser's allocator.
    rows = [campaign(target, seconds, args.core if target == "doors" else None) for target in targets]
    if args.targets and args.json.is_file():  # the others as they were
        old = json.loads(args.json.read_text())["rows"]
        rows = sorted([*(row for row in old if row["target"] not in targets), *rows], key=lambda row: row["target"])
    report = {
        "what": "inputs chosen by coverage (atheris, libFuzzer) against every door that takes strangers' bytes",
        "command": f"python bench/fuzz.py --minutes {args.minutes:g}"
        + (" --core build/fuzz_core/gantrt" if args.core else ""),
        "date": datetime.date.today().isoformat(),
        "machine": _machine(),
        "rows": rows,
    }
    args.json.write_text(json.dumps(report, indent=2) + "\n")
    sys.exit(any(row["faults"] or row["crashes"] for row in rows))


def campaign(target: str, seconds: float, core: Path | None) -> dict[str, Any]:
    """Fuzz one target for that long. A crash or a hang ends a process; the next one goes on from the corpus."""
    for folder in ("corpus", "found"):
        (WORK / folder / target).mkdir(parents=True, exist_ok=True)
    begin, executions, coverage, crashes = time.monotonic(), 0, 0, []
    while (left := seconds - (time.monotonic() - begin)) > 1:
        command = [
            *(sys.executable, __file__, "--one", target, f"-max_total_time={round(left)}", f"-timeout={_SLOWEST}"),
            *(f"-max_len={_LONGEST.get(target, 1024)}", "-rss_limit_mb=4096", "-print_final_stats=1", "-seed=1"),
            *(f"-artifact_prefix={WORK / 'found' / target}/", str(WORK / "corpus" / target)),
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, env=_environment(core)
        )
        counts = re.findall(r"stat::number_of_executed_units:\s+(\d+)", done.stderr) or re.findall(
            r"^#(\d+)\t", done.stderr, re.M
        )
        executions += int(counts[-1]) if counts else 0
        coverage = max([coverage, *map(int, re.findall(r"\bcov: (\d+)", done.stderr))])
        if done.returncode:
            crashes.append(_gist(done.stderr))
            if len(crashes) >= 10:
                break
    faults = sorted((WORK / "found" / target).glob("*.txt"))
    row = {
        "target": target,
        "seconds": round(time.monotonic() - begin),
        "executions": executions,
        "coverage": coverage,
        "corpus": sum(1 for _ in (WORK / "corpus" / target).iterdir()),
        "faults": [path.read_text().splitlines()[0] for path in faults],
        "crashes": crashes,
    }
    print(json.dumps(row), flush=True)
    return row


def _environment(core: Path | None) -> dict[str, str]:
    found = dict(os.environ) | {"OMP_NUM_THREADS": "1", "GANTRT_CACHE": "off", "OPENCV_LOG_LEVEL": "SILENT"}
    if core:
        import atheris

        runtime = Path(atheris.__file__).parent.parent / "asan_with_fuzzer.so"
        found |= {"LD_PRELOAD": str(runtime), "GANTRT_FUZZ_CORE": str(core.resolve())}
        found["ASAN_OPTIONS"] = "detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=8192"
    return found


def _gist(log: str) -> str:
    lines = [line for line in log.splitlines() if re.search(r"ERROR: |runtime error:|SUMMARY: |Error: ", line)]
    return (lines or log.splitlines()[-1:] or ["no word"])[0][:300]


def fuzz_one(name: str, options: list[str]) -> None:
    import atheris

    with atheris.instrument_imports(include=["gantrt", "gantrt_training"]):
        _use_core()
        import fuzz

        target = fuzz.load_target(name)
        seeds = [*target.seeds(), *fuzz.kept(name)]
    if Path(options[-1]).is_dir():
        _plant(Path(options[-1]), seeds)
    found = WORK / "found" / name
    seen: set[str] = set()

    def one_input(data: bytes) -> None:
        error = fuzz.fault(target, data)
        if error is None:
            return
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if "gantrt" in Path(frame.filename).parts[-3:]] or frames
        where = f"{Path(ours[-1].filename).name}:{ours[-1].name}"
        signature = hashlib.sha256(f"{type(error).__name__} {where}".encode()).hexdigest()[:12]
        if signature not in seen and not (found / f"{signature}.txt").exists():
            (found / f"{signature}.bin").write_bytes(data)
            text = "".join(traceback.format_exception(error))
            (found / f"{signature}.txt").write_text(f"{type(error).__name__} in {where}: {str(error)[:200]!r}\n{text}")
        seen.add(signature)

    import logging

    logging.disable(logging.CRITICAL)
    atheris.Setup([sys.argv[0], *options], one_input)
    atheris.Fuzz()


def _use_core() -> None:
    """The instrumented _core in place of the installed one."""
    folder = os.environ.get("GANTRT_FUZZ_CORE")
    if folder:
        import other_core

        other_core.use(folder)


def _plant(corpus: Path, seeds: list[bytes]) -> None:
    for seed in seeds:
        (corpus / hashlib.sha1(seed).hexdigest()).write_bytes(seed)


def _machine() -> dict[str, Any]:
    from machine import machine

    return machine()


if __name__ == "__main__":
    main()
