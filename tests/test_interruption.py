"""Ctrl-C and the signals that end a program: when they raise, when they wait, and what is kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import clips
import gantrt
import gantrt.cli
import pytest
from clips import write_clip
from gantrt.cli import main
from gantrt.engines.openvino import OpenVINOEngine
from gantrt.interruption import Interrupted, interruptible, uninterrupted
from gantrt.video.encode import VideoSink
from tiny_networks import write_pointwise

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def _as_a_shell_starts_us() -> Iterator[None]:
    """Ctrl-C is heard, whatever the tests were started by; all handlers are afterwards what they were."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_each_of_them_raises_with_the_exit_code_of_shells(number: int) -> None:
    with pytest.raises(Interrupted) as interrupted, interruptible():
        send(number)
    assert interrupted.value.exit_code == 128 + number
    assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)


def test_an_ignored_signal_stays_ignored_and_a_callers_handler_his() -> None:
    heard: list[int] = []
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    with interruptible():
        send(signal.SIGHUP)
        send(signal.SIGTERM)
    assert heard == [signal.SIGTERM]


def test_a_first_signal_waits_for_the_block_and_a_second_does_not() -> None:
    done = []

    def work() -> None:
        with interruptible(), uninterrupted():
            send(signal.SIGINT)
            done.append("after the first")
            with pytest.raises(Interrupted):
                send(signal.SIGINT)
            done.append("after the second")

    with pytest.raises(Interrupted):
        work()
    assert done == ["after the first", "after the second"]
    with interruptible(), uninterrupted():
        done.append("nothing is left of them")
    assert len(done) == 3


def test_other_threads_are_left_alone() -> None:
    done = []

    def work() -> None:
        with interruptible(), uninterrupted():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


def translate(folder: Path, monkeypatch: pytest.MonkeyPatch, when: str, number: int, times: int = 1) -> int:
    """`gantrt translate` of 30 frames; the signal comes at the tenth, in the network or the encoder, or at the end."""
    count = [0]

    def signalling(real: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            count[0] += 1
            if count[0] == 10 or when == "close":
                for _ in range(times):
                    send(number)
            return real(*args, **options)

        return call

    owner, name = {"run": (OpenVINOEngine, "run"), "encode": (VideoSink, "_mux"), "close": (VideoSink, "close")}[when]
    monkeypatch.setattr(owner, name, signalling(getattr(owner, name)))
    engine, clip = write_pointwise(folder / "e.onnx", -1.0), write_clip(folder / "in.mp4", range(30), sound="aac")
    words = ["translate", "--engine", engine, clip, "-o", folder / "out.mp4", "--device", "cpu", "--no-progress"]
    return main([str(word) for word in words])


@pytest.mark.parametrize("when", ["run", "encode", "close"])
@pytest.mark.parametrize("number", SIGNALS)
def test_what_was_translated_is_kept_and_plays(
    when: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert translate(tmp_path, monkeypatch, when, number) == 128 + number
    frames = [clips.index_of(255 - image) for _, image in clips.frames(tmp_path / "out.mp4")]
    assert frames == list(range(len(frames)))
    assert len(frames) == 30 if when == "close" else 5 <= len(frames) < 30
    assert capsys.readouterr().err.splitlines()[-1] == "gantrt: interrupted"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.onnx", "in.mp4", "out.mp4"]


def test_impatience_leaves_nothing_half_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert translate(tmp_path, monkeypatch, "close", signal.SIGINT, times=2) == 130
    assert not list(tmp_path.glob(".*"))


ENDS = {
    "while it starts": "def main(): raise KeyboardInterrupt",
    "with a thread that waits for the import lock": (
        "import threading, _imp\n"
        "def main():\n"
        " _imp.acquire_lock()\n"
        " threading.Thread(target=lambda: __import__('this')).start()\n"
        " return 130"
    ),
}


@pytest.mark.parametrize("how", ENDS)
def test_an_interrupted_program_ends_at_once_and_shows_no_traceback(how: str) -> None:
    code = "import sys, types\nimport gantrt.__main__\n"
    code += "cli = sys.modules['gantrt.cli'] = types.ModuleType('gantrt.cli')\n"
    code += f"exec({ENDS[how]!r}, cli.__dict__)\nsys.exit(gantrt.__main__.main())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (130, "")


def test_what_a_library_makes_of_an_interrupt_is_no_error_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A module in C++ that is interrupted while it is imported "failed to initialise"."""

    def imports(*_: object, **__: object) -> None:
        try:
            send(signal.SIGINT)
        except KeyboardInterrupt as error:
            raise ImportError("initialization failed") from error

    monkeypatch.setattr(gantrt, "load", imports, raising=False)
    clip = write_clip(tmp_path / "in.mp4", range(2))
    assert main(["translate", "--engine", "e.onnx", str(clip), "-o", str(tmp_path / "out.mp4")]) == 130
    assert capsys.readouterr().err == "gantrt: interrupted\n"
