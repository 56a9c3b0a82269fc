"""Disks and pipes that are full, streams that are closed: one line says so, and no half file is left."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import clips
import cv2
import pytest
from clips import write_clip
from tiny_networks import write_pointwise
from tiny_pictures import picture, write

ROOM = 1024  # bytes that a file may have


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full")
    write_pointwise(folder / "e.onnx", -1.0, dynamic=True)
    write_clip(folder / "in.mp4", range(50), sound="aac")
    for index in range(4):
        write(folder / "pictures" / f"{index}.png", picture(index, 100, 100))
        write(folder / "wide" / f"{index}.png", picture(index, 100, 200))
    return folder


def gantrt(home: Path, *arguments: object, **how: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gantrt", *map(str, arguments)]
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | how
    return subprocess.run(command, text=True, check=False, timeout=60, cwd=home, **how)


def full() -> None:
    """In the child: no file grows beyond ROOM bytes, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, ROOM))


E = ("--engine", "e.onnx", "--device", "cpu")
WRITERS: dict[str, tuple[object, ...]] = {
    "made.mp4": ("translate", *E, "in.mp4"),
    "made.webm": ("translate", *E, "in.mp4"),
    "made.gif": ("translate", *E, "in.mp4"),
    "made.png": ("translate", *E, "pictures/0.png"),
    "made/": ("translate", *E, "pictures"),
    "frames/%05d.bmp": ("translate", *E, "in.mp4"),
    "split": ("split", "wide"),
}


@pytest.mark.parametrize("output", WRITERS)
def test_a_full_disk_is_one_line_and_leaves_no_half_file(output: str, home: Path) -> None:
    done = gantrt(home, *WRITERS[output], "-o", output, "-q", preexec_fn=full)
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    assert "cannot be written (" in line
    assert "too large" in line.lower()  # how the system says it of a limit; of a disk: no space left
    made = home / output.partition("%")[0]
    assert not [path for path in (made, *made.rglob("*")) if path.is_file()]
    assert not list(home.glob(".*"))


def test_a_report_that_finds_no_room_is_not_there(home: Path) -> None:
    command = ("bench", *E, "--size", "16x16", "--duration", "0.01", "--iterations", "1", "--json", "report.json")
    done = gantrt(home, *command, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64)))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert not list(home.glob("*report.json*"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 100 KB."""
    (tmp_path / "disk").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(tmp_path / "disk")]
    try:
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("may not mount")
    except FileNotFoundError:
        pytest.skip("has no mount")
    yield tmp_path / "disk"
    subprocess.run(["umount", str(tmp_path / "disk")], check=True)


def test_on_a_disk_that_fills_up_what_was_finished_stays(home: Path, small_disk: Path) -> None:
    for index in range(8):
        write(home / "many" / f"{index}.png", picture(index, 100, 100))
    done = gantrt(home, "translate", *E, "many", "-o", f"{small_disk}/out/", "-q")
    assert done.returncode == 1
    assert "cannot be written (No space left on device)" in done.stderr
    made = sorted((small_disk / "out").iterdir())
    assert 0 < len(made) < 8
    for path in made:
        assert (cv2.imread(str(path)) == 255 - cv2.imread(str(home / "many" / path.name))).all()


def test_a_full_standard_output_is_one_line(home: Path) -> None:
    with open("/dev/full", "w") as full_device:
        for command in (
            ["inspect", "e.onnx"],
            ["translate", *E, "in.mp4", "-o", "-", "-q"],
            ["translate", *E, "in.mp4", "-o", "x.mp4", "-q", "--json", "--overwrite"],
        ):
            done = gantrt(home, *command, stdout=full_device)
            assert done.returncode == 1
            (line,) = done.stderr.splitlines()
            assert "no space left on device" in line


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_no_hindrance(closed: str, home: Path) -> None:
    """Nor does a file we write get the number that libraries print to."""
    output = home / f"closed{len(closed)}{closed[0]}.mp4"
    command = f"exec {sys.executable} -m gantrt translate --engine e.onnx in.mp4 -o '{output}' --json -v {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, check=False, timeout=60, cwd=home)
    assert done.returncode == 0
    assert [clips.index_of(255 - image) for _, image in clips.frames(output)][:25] == list(range(25))


READ_ONLY: dict[str, Callable[[Path], list[object]]] = {
    "translate a picture": lambda at: ["translate", *E, "pictures/0.png", "-o", at / "x.png"],
    "translate a clip": lambda at: ["translate", *E, "in.mp4", "-o", at / "x.mp4"],
    "translate into a folder": lambda at: ["translate", *E, "pictures", "-o", f"{at}/x/"],
    "split": lambda at: ["split", "wide", "-o", at / "x"],
}


@pytest.mark.parametrize("command", READ_ONLY)
def test_a_folder_nobody_may_write_into_is_one_line(command: str, home: Path) -> None:
    """/proc is one for root as well."""
    done = gantrt(home, *READ_ONLY[command](Path("/proc")))
    assert done.returncode == 1
    assert "cannot be written (" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.plain_core
def test_limits_of_memory_and_threads_show_no_traceback(home: Path) -> None:
    for megabytes in (900, 1200, 1600):
        limit = megabytes << 20
        done = gantrt(
            home,
            *("translate", *E, "in.mp4", "-o", "limited.mp4", "--overwrite", "-q"),
            preexec_fn=lambda limit=limit: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        )
        assert "Traceback" not in done.stderr
        assert len(done.stderr.splitlines()) == bool(done.returncode) or done.returncode < 0  # a library's own abort
        if (home / "limited.mp4").exists():
            assert len(clips.frames(home / "limited.mp4")) == 50
