"""gantrt translate: what becomes what, exit codes, and what is left behind when something goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import clips
import gantrt
import numpy as np
import pytest
from clips import write_clip
from gantrt.cli import main
from gantrt.errors import DeviceUnavailable, EngineMismatch, UnsupportedInput
from gantrt.streaming import translated
from gantrt.timing import Summary
from gantrt.video import Frame
from gantrt.video.images import Picture, read_picture, write_picture
from tiny_networks import write_pointwise

ROOT = Path(__file__).resolve().parent.parent


class Negative:
    """Stands in for a Translator: negatives, and an error on the frame it is told."""

    def __init__(self, fail_at: int | None = None, error: BaseException | None = None) -> None:
        self.info = SimpleNamespace(streams=1, color="rgb", manifest=SimpleNamespace(batch=1))
        self._workers = ThreadPoolExecutor(1)
        self._seen, self._fail_at, self._error = 0, fail_at, error

    def __enter__(self) -> Negative:
        return self

    def __exit__(self, *_: object) -> None:
        pass  # it may be loaded again

    def submit(self, frame: np.ndarray) -> Future[np.ndarray]:
        return self._workers.submit(self._translate, frame)

    def stream(self, source: Any) -> Iterator[Frame]:
        return translated(self, source)  # type: ignore[arg-type]

    def stats(self) -> SimpleNamespace:
        return SimpleNamespace(frames=self._seen, engine=Summary.of([0.5]), total=Summary.of([1.0, 2.0]))

    def _translate(self, frame: np.ndarray) -> np.ndarray:
        self._seen += 1
        if self._error is not None and self._seen > (self._fail_at or 0):
            raise self._error
        return 255 - frame


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make gantrt.load return this translator."""

    def install(translator: Any) -> None:
        monkeypatch.setattr(gantrt, "load", lambda *_, **__: translator, raising=False)

    install(Negative())
    return install


@pytest.fixture(autouse=True)
def _nothing_stays_running() -> Iterator[None]:
    yield
    time.sleep(0.01)
    assert not [thread for thread in threading.enumerate() if thread.name == "gantrt-reader"]


def translate(*args: str | Path) -> int:
    return main(["translate", "--engine", "e.onnx", "--no-progress", *map(str, args)])


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def picture(path: Path, value: int = 10, size: tuple[int, int] = (6, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(path, Picture(np.full((*size, 3), value, np.uint8)))
    return path


pytestmark = pytest.mark.usefixtures("use")


def test_a_real_engine_translates_pictures_and_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    engine = write_pointwise(tmp_path / "negative.onnx", gain=-1, dynamic=True)
    source = write_clip(tmp_path / "in.mp4", range(12), sound="aac")
    picture(tmp_path / "in.png", 10)
    for name in ("mp4", "png"):
        args = [
            "translate",
            "--engine",
            engine,
            tmp_path / f"in.{name}",
            "-o",
            tmp_path / f"out.{name}",
            "--device",
            "cpu",
        ]
        assert main(list(map(str, [*args, "--no-progress", "--streams", 2]))) == 0
    assert [clips.index_of(255 - image) for _, image in clips.frames(tmp_path / "out.mp4")] == list(range(12))
    assert clips.packets(source, "audio") == clips.packets(tmp_path / "out.mp4", "audio")
    assert (read_picture(tmp_path / "out.png").image == 245).all()


def test_a_clip_keeps_frames_times_and_sound(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", range(30), sound="aac", options={"bf": "3"})
    assert translate(source, "-o", tmp_path / "out.mp4") == 0
    before, after = clips.frames(source), clips.frames(tmp_path / "out.mp4")
    assert [t for t, _ in before] == [t for t, _ in after]
    assert [clips.index_of(255 - image) for _, image in after] == list(range(30))
    assert clips.packets(source, "audio") == clips.packets(tmp_path / "out.mp4", "audio")


def test_a_folder_becomes_a_folder_with_the_same_names(tmp_path: Path) -> None:
    for name in ("1.png", "2.png", "10.jpg", "sub/3.webp", ".hidden/4.png"):
        picture(tmp_path / "in" / name)
    write_clip(tmp_path / "in" / "clip.mkv", range(3))
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    assert translate(tmp_path / "in", "-o", tmp_path / "out") == 0
    assert tree(tmp_path / "out") == ["1.png", "10.jpg", "2.png", "clip.mkv", "sub/3.webp"]
    assert (read_picture(tmp_path / "out" / "1.png").image == 245).all()


def test_a_folder_may_hold_its_output(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "1.png")
    for _ in range(2):
        assert translate(tmp_path / "in", "-o", tmp_path / "in" / "out", "--overwrite") == 0
    assert tree(tmp_path) == ["in/1.png", "in/out/1.png"]


def test_globs_and_several_inputs_go_into_a_folder(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/x2.png", "b/3.png"):
        picture(tmp_path / name)
    assert translate(tmp_path / "a" / "*.png", tmp_path / "b" / "3.png", "-o", f"{tmp_path}/out/") == 0
    assert tree(tmp_path / "out") == ["1.png", "3.png", "x2.png"]


def test_two_inputs_for_one_output_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture(tmp_path / "a" / "1.png")
    picture(tmp_path / "b" / "1.png")
    assert translate(tmp_path / "a", tmp_path / "b", "-o", tmp_path / "out") == 2
    assert "would become it" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_fails_is_listed_and_the_rest_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("1.png", "2.png", "3.png"):
        picture(tmp_path / "in" / name)
    (tmp_path / "in" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    assert translate(tmp_path / "in", "-o", tmp_path / "out", "--json") == 5
    printed = capsys.readouterr()
    assert tree(tmp_path / "out") == ["1.png", "3.png"]
    assert "1 of 3 inputs failed" in printed.err
    assert "2.png" in printed.err.splitlines()[-1]
    assert list(json.loads(printed.out)["failed"]) == [str(tmp_path / "in" / "2.png")]


def test_a_picture_the_engine_refuses_is_listed_and_the_rest_done(tmp_path: Path, use: Any) -> None:
    use(Negative(2, UnsupportedInput("too small")))
    for name in ("1.png", "2.png", "3.png"):
        picture(tmp_path / "in" / name)
    assert translate(tmp_path / "in", "-o", tmp_path / "out") == 5
    assert len(tree(tmp_path / "out")) == 2  # whichever: pictures are read side by side


def test_a_clip_into_a_folder_becomes_pictures(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", range(11))
    assert translate(source, "-o", tmp_path / "frames") == 0
    assert tree(tmp_path / "frames") == [f"{i:06}.png" for i in range(1, 12)]
    for index in (0, 10):
        assert clips.index_of(255 - read_picture(tmp_path / "frames" / f"{index + 1:06}.png").image) == index
    assert translate(source, "-o", tmp_path / "frames") == 1
    assert translate(source, "-o", f"{tmp_path}/frames.v2/") == 0
    assert len(tree(tmp_path / "frames.v2")) == 11


def test_pictures_become_a_clip(tmp_path: Path) -> None:
    for index in (1, 2, 10):
        write_picture(picture(tmp_path / "in" / f"{index}.png"), Picture(clips.grey(index)))
    assert translate(tmp_path / "in", "-o", tmp_path / "out.mp4", "--fps", "30000/1001") == 0
    written = clips.frames(tmp_path / "out.mp4")
    assert [clips.index_of(255 - image) for _, image in written] == [1, 2, 10]
    assert written[1][0] == pytest.approx(1001 / 30000)


def test_a_gif_is_a_clip_or_a_picture_as_the_output_is(tmp_path: Path, data_dir: Path) -> None:
    gif = data_dir / "videos" / "newtonscradle.gif"
    assert translate(gif, "-o", tmp_path / "out.mp4") == 0
    assert len(clips.frames(tmp_path / "out.mp4")) == 36
    assert translate(gif, "-o", tmp_path / "out.png") == 0
    assert read_picture(tmp_path / "out.png").image.shape == (150, 200, 3)


def test_real_pictures_all_but_the_damaged(tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert translate(data_dir / "images", "-o", tmp_path / "out", "--json") == 5
    summary = json.loads(capsys.readouterr().out)
    assert summary["frames"] == 18
    assert len(summary["failed"]) == 5
    assert len(tree(tmp_path / "out")) == 18
    source, made = (read_picture(p / "rgba.png") for p in (data_dir / "images", tmp_path / "out"))
    assert np.array_equal(made.image, 255 - source.image)
    assert np.array_equal(made.alpha, source.alpha)  # type: ignore[arg-type]


def test_a_stream_that_breaks_is_kept_and_playable(
    tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.mp4"
    assert translate(data_dir / "videos" / "decord_corrupted.mp4", "-o", output, "--crf", "45") == 5
    assert "49 of 50 frames could be read; 49 frames are kept in" in capsys.readouterr().err
    assert len(clips.frames(output)) == 49
    assert tree(tmp_path) == ["out.mp4"]


def test_max_frames_stops_in_time(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", range(60), sound="aac")
    assert translate(source, "-o", tmp_path / "out.mp4", "--max-frames", "5") == 0
    assert len(clips.frames(tmp_path / "out.mp4")) == 5
    assert clips.packets(tmp_path / "out.mp4", "audio")[-1][0] <= 0.2


def test_null_discards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_clip(tmp_path / "in.mp4", range(7))
    assert translate(source, "-o", "null:", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert {key: summary[key] for key in ("output", "frames", "p50_ms", "p95_ms", "failed")} == {
        "output": "null:",
        "frames": 7,
        "p50_ms": 1.0,
        "p95_ms": 2.0,
        "failed": {},
    }
    assert summary["fps"] > 0
    assert tree(tmp_path) == ["in.mp4"]


@pytest.mark.parametrize("output", ["out.mp4", "out.png", "out"])
def test_existing_outputs_are_kept_without_overwrite(tmp_path: Path, output: str) -> None:
    source = picture(tmp_path / "in.png")
    existing = (
        picture(tmp_path / ("out/in.png" if output == "out" else output))
        if output != "out.mp4"
        else write_clip(tmp_path / output)
    )
    before = existing.read_bytes()
    assert translate(source, "-o", tmp_path / output) == 1
    assert existing.read_bytes() == before
    assert translate(source, "-o", tmp_path / output, "--overwrite") == 0
    assert existing.read_bytes() != before


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["missing.mp4", "-o", "out.mp4"], 5, "missing.mp4: no such file"),
        (["*.nothing", "-o", "out"], 5, "no such file"),
        (["empty", "-o", "out"], 5, "no pictures or clips"),
        (["text.mp4", "-o", "out.mp4"], 5, "cannot be read as a clip"),
        (["text.png", "-o", "out.png"], 5, "it is no PNG"),
        (["in.mp4", "-o", "out.avi"], 2, "is not written"),
        (["in.mp4", "-o", "out.gif", "--crf", "3"], 2, "has none to choose"),
        (["in.mp4", "-o", "out.png"], 2, "name a folder, %05d.png or a clip"),
        (["in.mp4", "in.png", "-o", "out.mp4"], 2, "name a folder"),
        (["in.mp4", "-o", "nonsense:"], 2, "no such output"),
        (["in.png", "-o", "camera:0"], 2, "no such output"),
        (["in.mp4", "-o", "-", "--json"], 2, "both write to stdout"),
        (["fake:in.mp4", "in.png", "-o", "null:"], 2, "is translated alone"),
        (["fake:in.mp4", "-o", "out.png"], 2, "is many"),
        (["fake:missing.mp4", "-o", "null:"], 5, "missing.mp4"),
        (["frames/%05d.png", "-o", "out.mp4"], 5, "no such file"),
        (["in.mp4", "-o", "out.webm", "--codec", "h264"], 2, "cannot hold"),
        (["in.mp4", "-o", "in.png/out.mp4"], 1, "cannot be written"),
    ],
)  # fmt: skip
def test_mistakes_have_their_exit_code_one_line_and_leave_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    args: list[str],
    code: int,
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "in.mp4", range(3))
    picture(tmp_path / "in.png")
    (tmp_path / "empty").mkdir()
    for name in ("text.mp4", "text.png"):
        (tmp_path / name).write_text("neither")
    before = tree(tmp_path)
    assert translate(*args) == code
    printed = capsys.readouterr()
    assert says in printed.err
    assert len(printed.err.splitlines()) == 1
    assert printed.out == ""
    assert tree(tmp_path) == before


def test_wrong_flags_are_usage_errors(tmp_path: Path) -> None:
    for flags in (["--size", "256"], ["--fps", "0"], ["--max-frames", "0"], ["--streams", "x"], []):
        with pytest.raises(SystemExit) as caught:
            translate(tmp_path, *(["-o", "null:"] if flags else []), *flags)
        assert caught.value.code == 2


@pytest.mark.parametrize(
    ("error", "code"), [(EngineMismatch("built for another GPU"), 3), (DeviceUnavailable("no GPU"), 4)]
)
def test_engine_problems_keep_their_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    def load(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(gantrt, "load", load, raising=False)
    assert translate(write_clip(tmp_path / "in.mp4", (0,)), "-o", tmp_path / "out.mp4") == code
    assert tree(tmp_path) == ["in.mp4"]


def test_an_engine_that_fails_midway_leaves_nothing(tmp_path: Path, use: Any) -> None:
    use(Negative(5, gantrt.GantrtError("the device is gone")))
    source = write_clip(tmp_path / "in.mp4", range(20), sound="aac")
    assert translate(source, "-o", tmp_path / "out.mp4") == 1
    assert tree(tmp_path) == ["in.mp4"]


def test_an_unexpected_error_is_a_line_and_leaves_nothing(tmp_path: Path, use: Any, capsys: Any) -> None:
    use(Negative(5, RuntimeError("a bug")))
    source = write_clip(tmp_path / "in.mp4", range(20))
    assert translate(source, "-o", tmp_path / "out.mp4") == 1
    assert "gantrt: unexpected RuntimeError: a bug; this is a fault of gantrt" in capsys.readouterr().err
    assert tree(tmp_path) == ["in.mp4"]


def test_a_sink_that_fails_midway_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gantrt.video.encode import VideoSink

    write, seen = VideoSink.write, []

    def failing(sink: VideoSink, frame: Frame) -> None:
        seen.append(frame.index)
        if len(seen) == 4:
            raise gantrt.GantrtError("out.mp4: cannot be written (no space left on device)")
        write(sink, frame)

    monkeypatch.setattr(VideoSink, "write", failing)
    source = write_clip(tmp_path / "in.mp4", range(50))
    assert translate(source, "-o", tmp_path / "out.mp4") == 1
    assert tree(tmp_path) == ["in.mp4"]


@pytest.mark.parametrize(("after", "left"), [(6, ["in.mp4", "out.mp4"]), (0, ["in.mp4"])])
def test_an_interrupt_keeps_what_is_done(
    tmp_path: Path, use: Any, capsys: pytest.CaptureFixture[str], after: int, left: list[str]
) -> None:
    use(Negative(after, KeyboardInterrupt()))
    source = write_clip(tmp_path / "in.mp4", range(50), sound="aac")
    assert translate(source, "-o", tmp_path / "out.mp4") == 130
    assert tree(tmp_path) == left
    if after:
        assert len(clips.frames(tmp_path / "out.mp4")) == after
        assert clips.packets(tmp_path / "out.mp4", "audio")[-1][0] <= after / 25
        assert "6 frames are kept" in capsys.readouterr().err


def test_ctrl_c_closes_the_file_properly(tmp_path: Path) -> None:
    write_clip(tmp_path / "in.mp4", range(250))
    program = """
import sys, time, gantrt
from gantrt.cli import main
from test_cli_translate import Negative
class Slow(Negative):
    def _translate(self, frame):
        time.sleep(0.02)
        print("frame", file=sys.stderr, flush=True)
        return super()._translate(frame)
gantrt.load = lambda *_, **__: Slow()
sys.exit(main(sys.argv[1:]))
"""
    args = ["translate", "--engine", "e.onnx", "in.mp4", "-o", "out.mp4", "--no-progress"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "python"), str(ROOT / "tests")])}
    with subprocess.Popen(
        [sys.executable, "-c", program, *args], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for _ in range(20):
            assert "frame" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 130
    assert "frames are kept in out.mp4" in said
    assert "Traceback" not in said
    assert tree(tmp_path) == ["in.mp4", "out.mp4"]
    kept = clips.frames(tmp_path / "out.mp4")
    assert 10 <= len(kept) < 250
    assert [clips.index_of(255 - image) for _, image in kept[:20]] == list(range(len(kept[:20])))


def test_progress_goes_to_stderr_and_can_be_silenced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_clip(tmp_path / "in.mp4", range(5))
    assert main(["translate", "--engine", "e.onnx", str(source), "-o", "null:"]) == 0
    printed = capsys.readouterr()
    assert "5/5 frames" in printed.err
    assert printed.out == ""
    assert translate(source, "-o", "null:") == 0
    assert capsys.readouterr().err == ""
