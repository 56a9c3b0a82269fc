"""A file may be called whatever the file system takes, and every command takes it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from clips import frames, write_clip
from gantrt.cli import main
from tiny_networks import write_pointwise
from tiny_pictures import make_pairs, picture, write

ROOT = Path(__file__).resolve().parent.parent
NAMES = {
    "spaces": " a  b ",
    "percent": "50%",
    "percents that look like numbers": "%d of %05d",
    "single quote": "it's",
    "double quote": 'a"b',
    "newline": "new\nline",
    "dash": "-rf",
    "two dashes": "--overwrite",
    "unicode": "ünï 日本 🎬",
    "no unicode": "\udcff\udcfe",
    "wildcards": "[x]*?",
    "shell": "$HOME;`ls`&|#~",
    "backslash": "a\\b",
    "colon": "a:b",
    "camera": "camera:0",
    "dots": "x..y.z",
    "control characters": "\x1b[31m\t\x7f",
    "as long as may be": "n" * 230,
}


@pytest.fixture(params=NAMES, scope="module")
def named(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with an engine, a picture, a clip and a folder of pairs of that name."""
    home, name = tmp_path_factory.mktemp("paths"), NAMES[request.param]
    write_pointwise(home / f"{name}.onnx", -1.0, dynamic=True)
    cv2.imwrite(str(home / "plain.png"), picture(0))
    os.replace(home / "plain.png", home / f"{name}.png")
    write_clip(home / "plain.mp4", range(3), sound="aac")
    os.replace(home / "plain.mp4", home / f"{name}.mp4")
    make_pairs(home / "plain", train=2, test=1)
    (home / "plain").rename(home / name)
    return home, name


def run(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0


def translate(home: Path, name: str, source: Path, output: object) -> None:
    run("translate", "--engine", home / f"{name}.onnx", source, "-o", output, "-q", "--device", "cpu", "--overwrite")


def test_pictures_and_clips_keep_the_name(named: tuple[Path, str], tmp_path: Path) -> None:
    home, name = named
    translate(home, name, home / f"{name}.mp4", tmp_path / f"{name}.mp4")
    assert len(frames(tmp_path / f"{name}.mp4") if name.isascii() else os.listdir(tmp_path)) in (1, 3)
    if name.count("%d") + name.count("%05d") != 1:  # those are numbered
        translate(home, name, home / f"{name}.png", tmp_path / f"{name}.png")
    translate(home, name, home / name, f"{tmp_path / 'out' / name}/")
    made = [path.relative_to(tmp_path / "out" / name) for path in (tmp_path / "out").rglob("*.png")]
    assert sorted(map(str, made)) == ["test/0.png", "train/0.png", "train/1.png"]
    translate(home, name, home / f"{name}.mp4", f"{tmp_path / 'frames' / name}/%05d.png")
    translate(home, name, Path(f"{tmp_path / 'frames' / name}/%05d.png"), tmp_path / "back.mp4")
    assert len(frames(tmp_path / "back.mp4")) == 3


def test_relative_names_work_after_two_dashes(
    named: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, name = named
    monkeypatch.chdir(home)
    output = f"--output={tmp_path / 'out.png'}"
    run("translate", f"--engine={name}.onnx", "-q", "--device=cpu", "--overwrite", output, "--", f"{name}.png")
    assert (tmp_path / "out.png").exists()


def test_the_other_commands_take_it_too(named: tuple[Path, str], tmp_path: Path) -> None:
    home, name = named
    engine = home / f"{name}.onnx"
    run("inspect", engine)
    run("split", home / name, "-o", tmp_path / name, "--no-progress")
    assert (tmp_path / name / "trainA").is_dir()
    report = tmp_path / f"{name}.json"
    run("evaluate", "--engine", engine, "--data", home / name, "--metrics", "l1", "--json", report, "--device", "cpu")
    assert report.stat().st_size
    for runtime in ("openvino", "onnxruntime"):
        work = ["bench", "--engine", engine, "--runtime", runtime, "--size", "16x16", "--duration", "0.01"]
        run(*work, "--iterations", "1", "--warmup", "0", "--json", report)


def test_a_file_called_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    """%05d means numbers, in and out, unless there is a file of that very name."""
    engine, literal = write_pointwise(tmp_path / "e.onnx", -1.0, dynamic=True), tmp_path / "%05d.png"
    write(tmp_path / "source.png", picture(0))
    translate(tmp_path, "e", tmp_path / "source.png", literal)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00001.png", engine.name, "source.png"]
    os.replace(tmp_path / "00001.png", literal)
    translate(tmp_path, "e", literal, tmp_path / "back.png")
    assert (cv2.imread(str(tmp_path / "back.png")) == cv2.imread(str(tmp_path / "source.png"))).all()
    translate(tmp_path, "e", tmp_path / "source.png", literal)  # with --overwrite
    assert sorted(path.name for path in tmp_path.iterdir()) == ["%05d.png", "back.png", engine.name, "source.png"]


LOCALES = [
    {"LC_ALL": "C"},
    {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "utf-8:strict"},
]


@pytest.mark.parametrize("variables", LOCALES, ids=["C", "POSIX", "strict UTF-8"])
def test_no_locale_is_in_the_way(variables: dict[str, str], tmp_path: Path) -> None:
    name = b"\xff\xc3\xa9 \xe6\x97\xa5.png"  # no UTF-8, then some
    pairs = make_pairs(tmp_path / "pairs", train=1, test=1)
    engine = write_pointwise(tmp_path / "e.onnx", -1.0, dynamic=True)
    source = os.fsencode(tmp_path) + b"/" + name
    Path(os.fsdecode(source)).write_bytes((pairs / "train" / "0.png").read_bytes())
    for command in (
        [b"translate", b"--engine", os.fsencode(engine), source, b"-o", source + b".png", b"--json"],
        [b"split", os.fsencode(pairs), b"-o", os.fsencode(tmp_path) + b"/split-" + name],
        [b"translate", b"--engine", os.fsencode(engine), source + b" is not there", b"-o", b"x.png"],
    ):
        called = [os.fsencode(sys.executable), b"-m", b"gantrt", *command]
        done = subprocess.run(called, capture_output=True, env=os.environ | variables, check=False, cwd=tmp_path)
        assert b"Traceback" not in done.stderr, done.stderr
        assert done.returncode == (5 if b"not there" in b"".join(command) else 0), done.stderr
        assert len(done.stderr.splitlines()) < 5


def test_a_name_is_one_line_of_a_message_whatever_is_in_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name in ("new\nline.png", "\x1b[31mred.png"):
        assert main(["translate", "--engine", "e.onnx", str(tmp_path / name), "-o", "x.png"]) == 5
        (line,) = capsys.readouterr().err.splitlines()
        assert line.endswith("no such file")
        assert line.isprintable()


def test_a_training_takes_pictures_of_any_name_and_says_what_its_own_must_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = tmp_path / "\udcff\n-x%d"
    make_pairs(tmp_path / "plain", train=2, test=1)
    (tmp_path / "plain").rename(odd)
    small = ["--set", "size=32", "ngf=4", "ndf=4", "batch=1", "sample_every=1", "--steps", "1", "--device", "cpu", "-q"]
    run("train", "pix2pix", "--data", odd, "-o", tmp_path / "日本 %d\n", *small)
    run("inspect", tmp_path / "日本 %d\n")
    assert main(["train", "pix2pix", "--data", str(odd), "-o", str(tmp_path / "\udcff"), *small]) == 2
    assert "TensorBoard takes Unicode only; give -o another name" in capsys.readouterr().err
