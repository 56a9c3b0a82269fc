"""The tests with a C++ core that checks every access and every operation as it runs: AddressSanitizer and UBSan.

    python bench/sanitize.py                            # the whole suite, which is the second half of make test
    python bench/sanitize.py -n2 --dist=loadfile tests/test_pixels.py   # as pytest takes them

The core is built into build/sanitize, and takes the place of the installed one in the tests and in the commands that
they start. The sanitiser's library is loaded before Python, so that it sees what numpy and torch allocate, too. Tests
marked plain_core are left out: they build something themselves, or measure memory or speed. Leaks are not reported at
exit, because Python and the libraries leave much behind on purpose; a second, short run looks for those that come out
of gantrt's own code.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "sanitize"
RESULT = ROOT / "bench" / "results" / "sanitize.json"
_LIBRARIES = ("libasan.so", "libubsan.so", "libstdc++.so")
# Besides those marked plain_core: ONNX Runtime asks for a petabyte, where an exception tells it no, and the sanitiser
# ends the process.
_PETABYTE = (
    "--deselect=tests/test_hostile_engines.py::test_a_graph_that_cannot_be_is_refused_in_a_line_and_soon"
    "[pictures larger than memory-onnxruntime]"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tests", nargs="*", help="default: the whole suite")
    parser.add_argument("--write", action="store_true", help="keep the report, in bench/results/sanitize.json")
    args, options = parser.parse_known_args()
    if reason := missing():
        sys.exit(f"sanitize: {reason}; install g++ with its libasan and libubsan")
    begin = time.monotonic()
    core = build(BUILD)
    built = time.monotonic()
    tests = [*args.tests, _PETABYTE]
    code, printed = pytest([*tests, *options], core)
    tested, said = time.monotonic(), reports(core)
    found = leaks(core)
    report = {
        "what": "the tests with a core built with -fsanitize=address,undefined, and a run that looks for leaks",
        "command": " ".join(
            ["python bench/sanitize.py", *(f"{len(args.tests)} files" for _ in args.tests[:1]), *options]
        ),
        "tests": [Path(test).name for test in args.tests] or "all",
        "date": datetime.date.today().isoformat(),
        "machine": _machine(),
        "build_seconds": round(built - begin),
        "test_seconds": round(tested - built),
        **{word: int(count) for count, word in re.findall(r"(\d+) (passed|failed|skipped|error)", printed[-1])},
        "reports": said,
        "leaks": found,
    }
    print(json.dumps(report, indent=2))
    if args.write:
        RESULT.write_text(json.dumps(report, indent=2) + "\n")
    sys.exit(code or bool(report["reports"] or found))


def missing() -> str | None:
    """Why there can be no such build here; None if there can."""
    if cmake() is None:
        return "needs cmake"
    return next((f"needs {name}" for name in _LIBRARIES if not _library(name)), None)


def cmake() -> str | None:
    return shutil.which("cmake", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))


def build(folder: Path) -> Path:
    """The folder of a core built so."""
    core = folder / "gantrt"
    options = ("-DGANTRT_CUDA=OFF", "-DGANTRT_SANITIZE=address,undefined", f"-DGANTRT_CORE_DIR={core}")
    first = [str(cmake()), "-S", str(ROOT), "-B", str(folder), f"-DPython_EXECUTABLE={sys.executable}", *options]
    for command in (first, [str(cmake()), "--build", str(folder), "-j", str(os.cpu_count() or 1)]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stdout[-3000:] + done.stderr[-3000:])
    return core


def pytest(arguments: list[str], core: Path) -> tuple[int, list[str]]:
    """The tests with that core: exit code, and the lines printed, which are seen as they come."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    lines = [""]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(core), stdout=subprocess.PIPE, text=True, errors="replace", bufsize=1
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    return process.returncode, lines


def run(command: list[str], core: Path, **options: str) -> subprocess.CompletedProcess[str]:
    """Another command of Python's, with that core."""
    return subprocess.run(
        command,
        cwd=ROOT,
        env=environment(core, **options),
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


def environment(core: Path, **options: str) -> dict[str, str]:
    """That of a process, and of those it starts, in which gantrt has this core; earlier reports are removed."""
    log = core.parent / "reports"  # not stderr: pytest holds on to that, and what is said last would be lost
    shutil.rmtree(log, ignore_errors=True)
    log.mkdir()
    asan = {"detect_leaks": "0", "allocator_may_return_null": "1", "alloc_dealloc_mismatch": "0"}
    asan |= {"log_path": str(log / "asan")} | options
    paths = [str(ROOT / "tests" / "other_core"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "LD_PRELOAD": ":".join(_library(name) for name in _LIBRARIES),
        "ASAN_OPTIONS": ":".join(f"{key}={value}" for key, value in asan.items()),
        "UBSAN_OPTIONS": f"print_stacktrace=1:log_path={log / 'ubsan'}",
        "TBB_ENABLE_SANITIZERS": "1",  # else the way OpenVINO's threads load a library ends the process
        "GANTRT_TEST_CORE": str(core),
        "PYTHONPATH": os.pathsep.join(paths),
    }


def reports(core: Path) -> list[str]:
    """What the sanitisers said in the last run, one line each."""
    said = "\n".join(path.read_text(errors="replace") for path in sorted((core.parent / "reports").iterdir()))
    return re.findall(r".*(?:ERROR: AddressSanitizer|runtime error:).*", said)


def leaks(core: Path) -> list[str]:
    """What gantrt's own code allocated and lost, in some thousand calls of the core, most of them refused."""
    code = (
        f"import sys; sys.path[:0] = [{str(ROOT / 'tests')!r}]\n"
        "import fuzz; from fuzz.mutations import mutations; target = fuzz.load_target('doors')\n"
        "for data in mutations(target.seeds(), 3000): fuzz.fault(target, data)\n"
        "from gantrt import _core; print('made all calls of', _core.__file__)\n"
    )
    done = run([sys.executable, "-c", code], core, detect_leaks="1", fast_unwind_on_malloc="0")
    if f"made all calls of {core}" not in done.stdout:
        sys.exit(f"sanitize: the run that looks for leaks did not come to its end: {done.stderr[-3000:]}")
    said = "\n".join(path.read_text(errors="replace") for path in (core.parent / "reports").iterdir())
    blocks = re.split(r"\n(?=(?:Direct|Indirect) leak)", said)
    return [
        block.splitlines()[0] + " " + own[0].strip()
        for block in blocks
        if (own := re.findall(r".* in gantrt::.*", block))
    ]


def _library(name: str) -> str:
    """Where the compiler has it; "" where it has none."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        return ""
    found = subprocess.run(
        [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return found if os.path.isabs(found) else ""


def _machine() -> dict[str, Any]:
    from machine import machine

    return machine()


if __name__ == "__main__":
    main()
