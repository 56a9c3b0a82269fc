"""A training that is killed, or finds the disk full, loses nothing that was saved and goes on to the same weights."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from gantrt.errors import GantrtError
from gantrt_training import checkpoint, journal
from gantrt_training.family import list_families, load_family
from gantrt_training.recipe import Recipe
from gantrt_training.trainer import train
from process_of_two import recipe
from safetensors.torch import load_file
from tiny_pictures import make_pairs, make_sides

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="autograd with a GPU does not survive a fork")

SMALL = {"pool_size": 2, "dropout": 0.5}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    make_pairs(tmp_path / "pairs")
    make_sides(tmp_path / "sides")
    return tmp_path


def tiny(pictures: Path, family: str, **changes: object) -> Recipe:
    keys = {field.name for field in dataclasses.fields(load_family(family).Config)}
    random = {key: value for key, value in SMALL.items() if key in keys}
    quiet = {"batch": 2, "sample_every": 0, "checkpoint_every": 1, "log_every": 1, "ema": 0.9, "device": "cpu"}
    return recipe(pictures, family, **random, **quiet | changes)


def in_a_child(do: Callable[[], object]) -> int:
    """Its process id. It ends with 7 after a GantrtError, whose text goes to stderr.txt in the working folder."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            do()
            code = 0
        except GantrtError as error:
            Path("stderr.txt").write_text(str(error))
            code = 7
        finally:
            os._exit(code)
    return child


@pytest.mark.parametrize("family", list_families())
def test_killed_at_any_moment_it_resumes_to_the_same_weights(family: str, pictures: Path) -> None:
    """SIGKILL while a checkpoint is written after every step, twice; pools, dropout, averages and Adam included."""
    run, endless = pictures / "run", tiny(pictures, family, steps=100_000)
    killed_at = []
    for wait in (2, 5):
        already = killed_at[-1] if killed_at else 0
        child = in_a_child(lambda already=already: train(endless, run, resume=bool(already), progress=False))
        deadline = time.monotonic() + 300  # against a hang only
        try:
            while not (newest := checkpoint.newest_resumable(run)) or int(newest.stem[5:]) < already + wait:
                assert os.waitpid(child, os.WNOHANG) == (0, 0), "it ended by itself"
                assert time.monotonic() < deadline
                time.sleep(0.002)
        finally:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
        found = checkpoint.newest_resumable(run)
        assert found is not None
        killed_at.append(int(found.stem[5:]))
    last = killed_at[-1] + 2
    resumed = train(dataclasses.replace(endless, steps=last), run, resume=True, progress=False)
    whole = train(dataclasses.replace(endless, steps=last), pictures / "whole", progress=False)
    one, other = load_file(resumed), load_file(whole)
    assert one.keys() == other.keys()
    assert not [name for name in one if not torch.equal(one[name], other[name])]
    assert not list((run / checkpoint.FOLDER).glob(".*"))  # what the killed ones left half-written


@pytest.mark.parametrize("room", [0.5, 0.99])
def test_a_full_disk_is_one_error_and_the_checkpoint_before_stays(
    room: float, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system refuses to let a file grow beyond `room` of what a state needs, as a full disk would."""
    monkeypatch.chdir(pictures)
    run, made = pictures / "run", tiny(pictures, "cyclegan", steps=3)
    before = train(made, run, progress=False)
    content = before.read_bytes(), checkpoint.state_path(before).read_bytes()
    limit = int(len(content[1]) * room)

    def cramped() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        train(dataclasses.replace(made, steps=6), run, resume=True, progress=False)

    _, status = os.waitpid(in_a_child(cramped), 0)
    assert os.waitstatus_to_exitcode(status) == 7
    said = Path("stderr.txt").read_text()
    assert "step_0000004.state.pt: cannot be written (" in said
    assert "\n" not in said
    assert (before.read_bytes(), checkpoint.state_path(before).read_bytes()) == content
    assert [path.name for path in (run / checkpoint.FOLDER).iterdir() if path.name.startswith(".")] == []
    assert train(dataclasses.replace(made, steps=6), run, resume=True, progress=False).stem == "step_0000006"


def test_a_history_survives_a_kill_while_a_resumed_training_shortens_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """log.jsonl is whole at every moment: what comes after the checkpoint goes in one step."""
    log, lines = tmp_path / "log.jsonl", [f'{{"step": {step}}}\n' for step in range(5)]
    log.write_text("".join(lines) + '{"step": 5, "cut o')

    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        assert log.read_text().startswith("".join(lines))
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", kill)
        with pytest.raises(Killed):
            journal._forget_after(log, 3)
    journal._forget_after(log, 3)
    assert log.read_text() == "".join(lines[:4])
