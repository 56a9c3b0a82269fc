"""Translators and processes: forks, spawns, and programs that end with work in flight."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import gantrt
import numpy as np
import pytest
from clips import write_clip
from gantrt import ending
from gantrt.errors import DeviceUnavailable, GantrtError
from gantrt.translator import Translator
from tiny_networks import write_convolutions, write_pointwise

FRAME = np.arange(16 * 24 * 3, dtype=np.uint32).reshape(16, 24, 3).astype(np.uint8)
SECONDS = 20  # after which what hangs is killed


def load(path: Path, **options: object) -> Translator:
    return gantrt.load(path, device="cpu", cache_dir="", precision="fp32", **options)  # type: ignore[arg-type]


def negative(path: Path) -> None:
    """What a process of its own does: it ends with 0 if all is well."""
    with load(path) as translator:
        assert (translator.submit(FRAME).result() == 255 - FRAME).all()


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return write_pointwise(tmp_path / "negative.onnx", -1.0)


def in_a_fork(do: Callable[[], object]) -> int:
    """Its exit code: 0, or 7 after a GantrtError; it is killed if it hangs."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            do()
            code = 0
        except GantrtError:
            code = 7
        finally:
            os._exit(code)
    deadline = time.monotonic() + SECONDS
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.005)
    return os.waitstatus_to_exitcode(ended[1])


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_after_a_fork_the_parents_translator_is_refused_and_never_waited_for(engine: Path, runtime: str) -> None:
    with load(engine, runtime=runtime, streams=2) as translator:
        translator(FRAME)
        assert in_a_fork(lambda: translator(FRAME)) == 7
        assert in_a_fork(lambda: translator.submit(FRAME)) == 7
        assert in_a_fork(lambda: translator.translate([FRAME])) == 7
        assert in_a_fork(lambda: translator.stream([FRAME])) == 7
        assert in_a_fork(translator.close) == 0
        assert (translator(FRAME) == 255 - FRAME).all()


def test_in_a_fork_onnxruntime_loads_anew_and_openvino_says_what_to_do(engine: Path) -> None:
    with load(engine) as translator:  # so that this process has used OpenVINO
        translator(FRAME)
    assert in_a_fork(lambda: load(engine, runtime="onnxruntime")(FRAME)) == 0

    def says() -> None:
        with pytest.raises(DeviceUnavailable, match=rf"openvino: process {os.getppid()} used it before .*'spawn'"):
            load(engine, runtime="openvino")

    assert in_a_fork(says) == 0


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_both_ways_of_multiprocessing_work_where_the_parent_used_no_engine(method: str, engine: Path) -> None:
    code = (
        f"import multiprocessing, sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        f"from test_processes import Path, negative\n"
        f"if __name__ == '__main__':\n"
        f" pool = multiprocessing.get_context({method!r}).Pool(2)\n"
        f" pool.map(negative, [Path({str(engine)!r})] * 2)\n"
        f" pool.close(); pool.join()"
    )
    script = engine.with_name("script.py")
    script.write_text(code)
    subprocess.run([sys.executable, script], check=True, timeout=4 * SECONDS)


def test_a_spawned_process_works_beside_a_translator_of_its_parent(engine: Path) -> None:
    with load(engine) as translator:
        translator(FRAME)
        process = multiprocessing.get_context("spawn").Process(target=negative, args=(engine,))
        process.start()
        process.join(4 * SECONDS)
        assert process.exitcode == 0


def test_a_translator_is_not_pickled(engine: Path) -> None:
    with load(engine) as translator, pytest.raises(GantrtError, match="cannot be sent to another process"):
        pickle.dumps(translator)


ENDINGS = {
    "pending submits": "kept = [t.submit(F) for _ in range(4)]",
    "pending submits, nobody holds the translator": "t.submit(F); del t",
    "a stream that is read no further": "s = t.stream(CLIP); next(s)",
    "a live stream that is read no further": "s = t.stream('fake:' + CLIP); next(s)",
    "a stream of pictures, in another thread": "start(lambda: [*t.stream(CLIP)])",
    "daemon threads that call": "for _ in range(3): start(lambda: t(F))",
    "daemon threads that submit": "for _ in range(3): start(lambda: t.submit(F))",
    "a call at exit": "import atexit; atexit.register(lambda: print(t(F).shape, flush=True))",
    "a submit at exit": "import atexit; atexit.register(lambda: t.submit(F))",
}


@pytest.mark.parametrize("how", ENDINGS)
def test_a_program_ends_with_its_own_exit_code_whatever_is_in_flight(how: str, tmp_path: Path) -> None:
    engine = write_convolutions(tmp_path / "engine.onnx", size=(64, 64), width=16)
    clip = write_clip(tmp_path / "in.mp4", range(30))
    code = f"""
import sys, threading, time
import gantrt, numpy as np
t = gantrt.load({str(engine)!r}, device="cpu", cache_dir="", streams=2)
F, CLIP = np.zeros((360, 640, 3), np.uint8), {str(clip)!r}
def start(work):
    def go_on():
        while True: work()
    threading.Thread(target=go_on, daemon=True).start()
{ENDINGS[how]}
time.sleep(0.1)
sys.exit(3)
"""
    begin = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 3, done.stderr
    assert time.monotonic() - begin < SECONDS / 2
    if how == "a submit at exit":  # too late for a thread: one clear error
        assert "translator: the program is ending" in done.stderr
    else:
        assert done.stderr == ""


def test_sources_end_before_engines_and_a_fault_stops_none(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = []

    class Running:
        def __init__(self, name: str) -> None:
            self.name = name

        def end(self) -> None:
            ended.append(self.name)
            raise RuntimeError("a bug")

    source, engine = Running("source"), Running("engine")
    monkeypatch.setattr(ending, "_sources", {source})
    monkeypatch.setattr(ending, "_engines", {engine})
    ending._end()
    assert ended == ["source", "engine"]


def test_a_queue_that_has_ended_with_the_interpreter_says_so(engine: Path) -> None:
    """Its threads close it as they end, and then it no longer says why it takes nothing more."""
    code = f"""
import concurrent.futures.thread as queues
import gantrt, numpy as np
t = gantrt.load({str(engine)!r}, device="cpu", cache_dir="")
t.submit(np.zeros((8, 8, 3), np.uint8)).result()
queues._python_exit()
try:
    t.submit(np.zeros((8, 8, 3), np.uint8))
except gantrt.GantrtError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.stdout == "translator: the program is ending\n", done.stderr
