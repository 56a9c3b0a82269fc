"""What a user types wrong, or is given damaged, is one line: no command shows a traceback, unless -v asks for it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from gantrt.cli import list_commands, main
from tiny_networks import write_pointwise

NOISE = np.random.default_rng(0).bytes(2000)
FILES = {
    **{f"empty{suffix}": b"" for suffix in (".onnx", ".plan", ".safetensors", ".pth", ".png", ".mp4", ".json")},
    "noise.onnx": NOISE,
    "noise.plan": b"ftrt" + NOISE,
    "noise.safetensors": NOISE,
    "long.safetensors": b"\xff" * 8 + NOISE,
    "archive.pth": b"PK\x03\x04" + NOISE,
    "pickle.pth": b"\x80\x02" + NOISE,
    "noise.png": b"\x89PNG\r\n\x1a\n" + NOISE,
    "noise.jpg": b"\xff\xd8\xff" + NOISE,
    "noise.gif": b"GIF89a" + NOISE,
    "noise.mp4": b"\0\0\0\x20ftypisom" + NOISE,
    "text.onnx": b"hello " * 50,
    "list.txt": b"a.png b.png\n",
    "noise.txt": NOISE,
}
PLACES = (
    *FILES,
    "missing.onnx",
    "folder",
    "run",
    "/dev/null",
    "a" * 300,
    "..",
    "",
    "*",
    "%05d.png",
    "camera:99",
    "rtsp://[",
    "-",
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with all that is wrong in it, and one engine that is right."""
    work = tmp_path / "within" / "work"
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    for name, data in FILES.items():
        Path(name).write_bytes(data)
    Path("folder").mkdir()
    Path("run").mkdir()
    Path("run/recipe.json").write_bytes(NOISE)
    write_pointwise(Path("good.onnx"))
    cv2.imwrite("good.png", np.zeros((16, 24, 3), np.uint8))
    return work


def commands(place: str) -> dict[str, list[list[str]]]:
    """Of each command what is tried with a place that is wrong in some way."""
    translate = ["translate", "--engine"]
    return {
        "inspect": [["inspect", place], ["inspect", place, "--json"], ["inspect", place, "--html", "page.html"]],
        "import": [["import", place, "-o", "imported"]],
        "export": [["export", place, "-o", "out.onnx"], ["export", place, "-o", "out.plan"]],
        "translate": [
            [*translate, place, "good.png", "-o", "out.png"],
            *(
                [*translate, "good.onnx", place, "-o", out, "--overwrite"]
                for out in ("out.png", "out.mp4", "made", "null:")
            ),
            [*translate, "good.onnx", "good.png", "-o", place],
        ],
        "bench": [
            ["bench", "--engine", place],
            ["bench", "--engine", "good.onnx", "--source", place, "--duration", "0.01", "--iterations", "1"],
            ["bench", "--engine", "good.onnx", "--baseline", place, "--duration", "0.01", "--iterations", "1"],
        ],
        "evaluate": [
            ["evaluate", "--engine", place, "--data", "folder"],
            ["evaluate", "--engine", "good.onnx", "--data", place],
        ],
        "train": [
            ["train", "cyclegan", "--data", place, "-o", "trained"],
            ["train", "cyclegan", "--data", "folder", "-o", place],
            ["train", "--resume", "-o", place],
            ["train", place or "x", "--data", "folder", "-o", "trained"],
            ["train", "cyclegan", "--data", "folder", "-o", "trained", "--set", place or "x"],
        ],
        "split": [["split", place, "-o", "parts"]],
        "serve": [
            ["serve", "--engine", place, "--port", "0"],
            ["serve", "--engine", "good.onnx", "--port", "0", "--limit", place],
        ],
        "demo": [["demo", "-o", place]] if place in FILES or place == "/dev/null" else [],
        "doctor": [["doctor", place]],
    }


def test_no_command_is_left_out() -> None:
    assert set(commands("x")) == set(list_commands())


@pytest.mark.parametrize("command", list_commands())
@pytest.mark.filterwarnings("ignore")
def test_no_traceback_reaches_a_user(command: str, here: Path, capfd: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", open("/dev/null"))  # noqa: SIM115
    for place in PLACES:
        for words in commands(place)[command]:
            if words[0] == "translate" and place == "..":  # all the folders above are no test's
                continue
            try:
                code = main(words)
            except SystemExit as ended:  # argparse
                code = ended.code
            said = capfd.readouterr().err
            assert "Traceback" not in said, (words, said)
            assert "unforeseen" not in said, (words, said)
            assert code in range(7), (words, said)


def test_what_nobody_expected_is_a_line_too(monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(path: str) -> None:
        raise ZeroDivisionError("by\nnothing")

    monkeypatch.setattr("gantrt.summary.summary", broken)
    assert main(["inspect", "x"]) == 1
    said = capsys.readouterr().err
    assert said == "gantrt: unforeseen ZeroDivisionError (by); -v shows where, please report it\n"
    assert main(["inspect", "x", "-v"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_no_traceback_leaves_the_process(here: Path) -> None:
    """Nor one that Python itself would print, at its end or from a thread."""
    for words in (
        ["translate", "--engine", "good.onnx", "noise.png", "noise.mp4", "-o", "made"],
        ["inspect", "noise.onnx"],
    ):
        done = subprocess.run([sys.executable, "-m", "gantrt", *words], capture_output=True, text=True, check=False)
        assert done.returncode in (3, 5)
        assert "Traceback" not in done.stderr
        assert all(
            line.startswith(("gantrt: ", "translate", "0/", "1/", "2/"))
            for line in done.stderr.splitlines()
            if line.strip()
        )
