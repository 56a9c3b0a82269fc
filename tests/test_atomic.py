"""Files appear whole or not at all, and what a killed process left half-made is removed by the next."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from gantrt import atomic
from gantrt.atomic import atomic_path, clear_scratch, scratch_folder
from gantrt.errors import GantrtError
from gantrt.model_cache import ModelCache

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _as_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test is the first that this process writes anything."""
    monkeypatch.setattr(atomic, "_cleared", set())


def killed_in(block: str, *arguments: object) -> None:
    """A process that enters a block of gantrt.atomic and is killed inside it."""
    code = f"import os, signal, sys\nfrom gantrt.atomic import *\nwith {block} as path:\n"
    code += " (path / 'x' if path.is_dir() else path).write_text('half')\n os.kill(os.getpid(), signal.SIGKILL)"
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=False, cwd=ROOT / "python")
    assert done.returncode == -signal.SIGKILL


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_a_killed_process_left_goes_when_the_next_writes_there(tmp_path: Path) -> None:
    killed_in("atomic_path(sys.argv[1])", tmp_path / "a b%d.png")
    assert len(names(tmp_path)) == 1
    assert not (tmp_path / "a b%d.png").exists()
    with atomic_path(tmp_path / "other.txt") as temporary:
        temporary.write_text("whole")
    assert names(tmp_path) == ["other.txt"]


def test_what_a_living_process_writes_stays(tmp_path: Path) -> None:
    code = "import sys\nfrom gantrt.atomic import atomic_path\nwith atomic_path(sys.argv[1]) as path:\n"
    code += " path.write_text('its'); print('there', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(tmp_path / "its.txt")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT / "python") as other:
        assert other.stdout is not None
        other.stdout.readline()
        with atomic_path(tmp_path / "mine.txt") as temporary:
            temporary.write_text("mine")
        other.communicate()
    assert names(tmp_path) == ["its.txt", "mine.txt"]


def test_files_of_others_are_never_taken_for_ours(tmp_path: Path) -> None:
    mine = [
        ".film.1.part.rar",
        ".x.99999999.part",
        "x.99999999-0.gantrt.part.png",
        ".gantrt.part",
        ".a.b-c.gantrt.part",
    ]
    for name in mine:
        (tmp_path / name).write_text("a user's")
    (tmp_path / ".f.99999999-0.gantrt.part.d").mkdir()
    (tmp_path / "target").write_text("a user's")
    (tmp_path / ".l.99999999-0.gantrt.part").symlink_to(tmp_path / "target")
    before = names(tmp_path)
    with atomic_path(tmp_path / "made.txt") as temporary:
        temporary.write_text("")
    assert names(tmp_path) == sorted([*before, "made.txt"])


def test_a_process_id_that_comes_again_harms_neither_side(tmp_path: Path) -> None:
    """In a container every start has the same id: what its last life left goes, what this one writes stays."""
    left = tmp_path / f".x.{os.getpid()}-123456.gantrt.part.txt"
    left.write_text("half")
    with atomic_path(tmp_path / "x.txt") as temporary:
        assert not left.exists()
        temporary.write_text("whole")
        atomic._cleared.clear()
        with atomic_path(tmp_path / "y.txt") as other:
            other.write_text("whole")
        assert temporary.exists()
    assert names(tmp_path) == ["x.txt", "y.txt"]


def test_two_threads_may_write_one_file(tmp_path: Path) -> None:
    both, faults = threading.Barrier(2), []

    def write(text: str) -> None:
        try:
            with atomic_path(tmp_path / "x.txt") as temporary:
                temporary.write_text(text)
                both.wait(10)
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=write, args=(text,)) for text in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert (tmp_path / "x.txt").read_text() in ("one", "two")
    assert names(tmp_path) == ["x.txt"]


def test_a_thread_that_clears_a_folder_leaves_what_another_has_just_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = atomic.lock

    def late(path: Path) -> int | None:
        """Between making a file and locking it, another thread comes to the folder by another name."""
        atomic._cleared.clear()
        atomic._clear_once(Path(os.path.relpath(tmp_path)))
        return real(path)

    monkeypatch.setattr(atomic, "lock", late)
    with atomic_path(tmp_path / "x.txt") as temporary:
        temporary.write_text("whole")
    assert names(tmp_path) == ["x.txt"]


def test_what_is_no_file_is_never_replaced_by_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(GantrtError, match="is no file"), atomic_path(tmp_path / name):
            raise AssertionError("it must not come so far")
    assert (tmp_path / "pipe").is_fifo()


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")
    for text in ("first", "second"):  # it need not lead anywhere yet
        with atomic_path(tmp_path / "link") as temporary:
            temporary.write_text(text)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "real").read_text() == text
    assert names(tmp_path) == ["link", "real"]


def test_writers_nest(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "x.txt") as outer:
        with atomic_path(outer) as inner:
            inner.write_text("whole")
        assert not (tmp_path / "x.txt").exists()
    assert (tmp_path / "x.txt").read_text() == "whole"


@pytest.mark.parametrize("stem", ["n" * 251, "é" * 125, "日" * 83, "\udcff" * 251])
def test_names_may_be_as_long_as_the_file_system_takes(stem: str, tmp_path: Path) -> None:
    path = tmp_path / f"{stem}.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == [path.name]


def test_a_folder_nobody_may_write_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(GantrtError, match=r"x\.txt: cannot be written \(.+\)$"),
        atomic_path(tmp_path / "file" / "x.txt"),
    ):
        raise AssertionError("it must not come so far")


def test_scratch_folders_of_killed_processes_go(tmp_path: Path) -> None:
    killed_in("scratch_folder(sys.argv[1], Path(sys.argv[2]))", ".gantrt-x-", tmp_path)
    assert len(names(tmp_path)) == 1
    (tmp_path / ".gantrt-x-notes").mkdir()
    with scratch_folder(".gantrt-x-", tmp_path) as mine:
        (mine / "y").write_text("")
        assert names(tmp_path) == sorted([mine.name, ".gantrt-x-notes"])
        clear_scratch(".gantrt-x-", tmp_path)
        assert mine.exists()
    assert names(tmp_path) == [".gantrt-x-notes"]


def test_a_model_cache_drops_what_a_killed_process_left(tmp_path: Path, dead: Callable[[], int]) -> None:
    (tmp_path / f"{dead()}-abc.part").write_bytes(b"half")
    (tmp_path / f"{os.getppid()}-abc.part").write_bytes(b"of one that runs")
    ModelCache(tmp_path, 1 << 20).write("key", b"model")
    assert names(tmp_path) == sorted([f"{os.getppid()}-abc.part", "key.model"])


@pytest.fixture
def dead() -> Callable[[], int]:
    """The id of a process that has ended."""

    def end() -> int:
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        return ended.pid

    return end
