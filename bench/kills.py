"""Does kill -9 at any moment, or Ctrl-C, leave half a file, lose what was saved, or leave rubbish for ever?

    python bench/kills.py [--kills 240] [--interrupts 60] [--seed 0] [-o FILE.json]

Small networks, pictures and clips, so that a run takes some seconds. Each command is first run to its end, then again
and again, each time killed after a time drawn uniformly from [0, how long it took]; every second time with its output
there from before. After each kill whatever has its final name is read in full: checkpoints load, engines too, clips
and pictures have every pixel, and a server that is started again serves. At the end each command is run to its end
once more, and no temporary file may be left. The commands run in children forked from one process that has imported
the libraries, so that the time of the kill is spread over work and not over imports. With --interrupts `gantrt
translate` is then started as a user does it and sent SIGINT or SIGTERM: it must end with 130 or 143, leave nothing or
a clip that plays with the first frames in order, and never show a traceback.

Writes bench/results/kills.json. Ends with exit code 6 if anything was found.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["GANTRT_CACHE"] = "off"

import av
import cv2
import httpx
import onnx
import onnxscript  # noqa: F401, for export
import torch
from gantrt.cli import main as gantrt
from gantrt.engine_file import read_manifest
from gantrt.telemetry import import_silent
from gantrt_training import checkpoint, export, trainer  # noqa: F401
from machine import machine

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))
import clips  # noqa: E402
import tiny_networks  # noqa: E402
import tiny_pictures  # noqa: E402

import_silent("openvino")  # before the fork; used only after it

FRAMES, PICTURES = 300, 60
PATIENCE = 60.0  # seconds


@dataclass
class Case:
    """One command. `check` raises AssertionError if what has a final name is not whole; before: it was there."""

    name: str
    argv: Callable[[], list[str]]
    check: Callable[[bool], None]
    target: Path | None = None  # what it makes; None: it goes on from what is there
    kills: int = 0
    after_its_end: int = 0  # it was quicker than the kill
    outputs: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Lab:
    """A folder with everything the commands need, and their cases."""

    def __init__(self, home: Path, steps: int) -> None:
        self.steps, self.home, self.temporary = steps, home, home / "tmp"
        self.temporary.mkdir()
        os.environ["TMPDIR"] = tempfile.tempdir = str(self.temporary)
        self.out = home / "out"
        self.out.mkdir()
        self.engine = tiny_networks.write_pointwise(home / "negative.onnx", -1.0, dynamic=True)
        self.clip = clips.write_clip(home / "in.mp4", range(FRAMES), sound="aac")
        self.pictures = home / "pictures"
        for index in range(PICTURES):
            tiny_pictures.write(self.pictures / f"{index}.png", tiny_pictures.picture(index, 160, 200))
        tiny_pictures.make_pairs(home / "pairs")
        self.run = home / "run"

    def cases(self) -> list[Case]:
        out = self.out
        to = ["--engine", str(self.engine), "--device", "cpu", "--precision", "fp32", "--no-progress", "--overwrite"]
        clip, folder, picture, engine = out / "clip.mp4", out / "folder", out / "picture.png", out / "made.onnx"
        one = self.pictures / "0.png"
        return [
            Case("train", self._train, self._checkpoints),
            Case("export", lambda: ["export", str(self._trained()), "-o", str(engine), "--overwrite"],
                 lambda before: self._engine(engine, before), engine),
            Case("translate a clip", lambda: ["translate", str(self.clip), "-o", str(clip), *to],
                 lambda before: self._clip(clip, before), clip),
            Case("translate a folder", lambda: ["translate", str(self.pictures), "-o", str(folder), *to],
                 lambda before: self._folder(folder, before), folder),
            Case("translate a picture", lambda: ["translate", str(one), "-o", str(picture), *to],
                 lambda before: self._picture(one, picture, before), picture),
        ]  # fmt: skip

    def leftovers(self) -> list[str]:
        """Temporary files and folders, wherever one of the commands may have made them."""
        found = {*self.home.rglob(".*"), *self.temporary.iterdir()}
        return sorted(str(path.relative_to(self.home)) for path in found)

    def _train(self) -> list[str]:
        small = ["size=32", "ngf=4", "ndf=4", "batch=1", "checkpoint_every=1", "keep=3", "sample_every=10"]
        how = ["--resume"] if self.run.is_dir() and checkpoint.newest_resumable(self.run) else ["--overwrite"]
        saved = checkpoint.weights_in(self.run)
        self.saved = int(saved[-1].stem[5:]) if saved else 0
        steps = ["--steps", str(self.saved + self.steps)]
        data = ["--data", str(self.home / "pairs"), "-o", str(self.run), "--device", "cpu", "--no-progress"]
        return (
            ["train", "-o", str(self.run), "--no-progress", *how, *steps]
            if how == ["--resume"]
            else ["train", "pix2pix", *data, *how, *steps, "--set", *small]
        )

    def _checkpoints(self, before: bool) -> None:
        weights = checkpoint.weights_in(self.run)
        assert not self.saved or weights, "the checkpoints are gone"
        for path in weights:
            checkpoint.load_run(path)
        newest = checkpoint.newest_resumable(self.run)
        assert not self.saved or (newest and int(newest.stem[5:]) >= self.saved), "what was saved cannot be resumed"
        if newest:
            checkpoint.load_state(checkpoint.state_path(newest))

    def _trained(self) -> Path:
        return self.home / "trained"

    def _engine(self, path: Path, before: bool) -> None:
        assert path.exists() or not before, "the engine that was there is gone"
        if path.exists():
            onnx.load(path)
            assert read_manifest(path) is not None

    def _clip(self, path: Path, before: bool) -> None:
        assert path.exists() or not before, "the clip that was there is gone"
        if path.exists():
            assert frames_of(path) == FRAMES

    def _folder(self, folder: Path, before: bool) -> None:
        made = sorted(folder.glob("*")) if folder.is_dir() else []
        assert len([path for path in made if not path.name.startswith(".")]) == PICTURES or not before
        for path in made:
            if not path.name.startswith("."):
                self._picture(self.pictures / path.name, path, before)

    def _picture(self, source: Path, made: Path, before: bool) -> None:
        assert made.exists() or not before, "the picture that was there is gone"
        if made.exists():
            assert (cv2.imread(str(made)) == 255 - cv2.imread(str(source))).all(), f"{made.name} is another picture"


def frames_of(path: Path) -> int:
    """How many frames a clip has; AssertionError if they are not the first ones, in order, and negative."""
    with av.open(str(path)) as container:
        levels = [float(frame.to_ndarray(format="rgb24").mean()) for frame in container.decode(video=0)]
    for index, level in enumerate(levels):
        assert abs(255 - clips.level(index) - level) < 4, f"frame {index} is another"
    return len(levels)


def put(target: Path, kept: Path | None) -> None:
    """Make of `target` a copy of `kept`, or nothing."""
    if target.is_dir():
        for path in target.glob("[!.]*"):  # what a kill left stays
            path.unlink()
    else:
        target.unlink(missing_ok=True)
    if kept is not None and kept.is_dir():
        shutil.copytree(kept, target, dirs_exist_ok=True)
    elif kept is not None:
        shutil.copy(kept, target)


def fork(argv: list[str], log: Path) -> int:
    """A child that runs the command. Its process id."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            code = gantrt(argv)
        finally:
            os._exit(code)
    return child


def to_its_end(argv: list[str], log: Path) -> float:
    """Seconds it took. AssertionError if it fails."""
    begin = time.perf_counter()
    _, status = os.waitpid(fork(argv, log), 0)
    assert os.waitstatus_to_exitcode(status) == 0, f"{' '.join(argv)}: {log.read_text()[-2000:]}"
    return time.perf_counter() - begin


def kill(case: Case, draw: random.Random, log: Path) -> None:
    """Run it, kill it at some time, and look at what is there."""
    before = bool(case.kills % 2)
    if case.target is not None:
        put(case.target, kept(case.target) if before else None)
    argv = case.argv()
    child = fork(argv, log)
    time.sleep(draw.uniform(0, case.seconds))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    case.kills += 1
    case.after_its_end += os.waitstatus_to_exitcode(status) != -signal.SIGKILL
    try:
        assert "Traceback" not in log.read_text() if log.exists() else True, "a traceback"
        case.check(before)
    except Exception as fault:
        case.faults.append(f"{type(fault).__name__}: {fault}"[:300])


def kept(target: Path) -> Path:
    """Where a copy of what a whole run made lies."""
    return target.parent.with_name("kept") / target.name


def kill_servers(lab: Lab, count: int, draw: random.Random, log: Path) -> Case:
    """`gantrt serve` with clips under way, killed and started again."""
    case = Case("serve", list, lambda _: None)
    engine = ["--engine", f"negative={lab.engine}", "--device", "cpu", "--precision", "fp32"]
    data = lab.clip.read_bytes()
    for _ in range(count + 1):
        child = fork(["serve", *engine, "--port", "0"], log)
        try:
            address = await_server(log)
            left = [name for name in lab.leftovers() if "gantrt-serve" in name]
            assert not left, f"left by the one before: {left}"
            headers = {"content-type": "video/mp4"}
            answer = httpx.post(
                f"{address}/api/engines/negative/clips", content=data, headers=headers, timeout=PATIENCE
            )
            assert answer.status_code in (200, 201, 202), answer.text
            case.outputs["clips under way"] += 1
        except Exception as fault:
            case.faults.append(f"{type(fault).__name__}: {fault}"[:300])
        time.sleep(draw.uniform(0, 0.5))
        last = case.kills == count
        os.kill(child, signal.SIGTERM if last else signal.SIGKILL)
        os.waitpid(child, 0)
        case.kills += not last
    return case


def await_server(log: Path) -> str:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        lines = [line for line in (log.read_text() if log.exists() else "").splitlines() if " at http://" in line]
        if lines:
            address = lines[-1].split(" at ")[1].strip().rstrip("/")
            try:
                if httpx.get(f"{address}/readyz").status_code == 200:
                    return address
            except httpx.HTTPError:
                pass
        time.sleep(0.02)
    raise AssertionError(f"the server does not come up: {log.read_text()[-500:]}")


def interrupt(lab: Lab, count: int, draw: random.Random) -> dict[str, Any]:
    """`gantrt translate` of a clip, sent SIGINT or SIGTERM at some time of its run, its start and end included."""
    out = lab.out / "interrupted.mp4"
    command = [sys.executable, "-m", "gantrt", "translate", str(lab.clip), "-o", str(out), "--engine", str(lab.engine)]
    command += ["--device", "cpu", "--overwrite", "--no-progress"]
    begin = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    seconds = time.perf_counter() - begin
    faults: list[str] = []
    ends: Counter[str] = Counter()
    for number in range(count):
        out.unlink(missing_ok=True)
        sent = signal.SIGINT if number % 3 else signal.SIGTERM
        with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
            time.sleep(draw.uniform(0, seconds))
            process.send_signal(sent)
            try:
                _, said = process.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                faults.append(f"{sent.name}: hangs")
                continue
        # Before and after our own code runs, the interpreter ends as any program does.
        code = process.returncode
        own = {128 + sent, 0}
        ends[f"{sent.name}: {code}" if code in own else f"{sent.name}: ended by the signal"] += 1
        try:
            assert code in own | {-sent}, f"exit code {code}: {said[-300:]}"
            started = "gantrt/cli" in said or code != -sent
            assert "Traceback" not in said or not started, said[-600:]
            ends["Python's own traceback, before our first line"] += "Traceback" in said
            if out.exists():
                ends["a clip that plays"] += 1
                frames = frames_of(out)
                assert frames == FRAMES or (frames > 0 and code)
            assert code == -sent or not [name for name in lab.leftovers() if "interrupted" in name], "rubbish"
        except Exception as fault:
            faults.append(f"{sent.name}: {type(fault).__name__}: {fault}"[:600])
    return {"runs": count, "seconds_of_a_run": round(seconds, 2), "ends": dict(sorted(ends.items())), "faults": faults}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=240, help="of all commands together")
    parser.add_argument("--interrupts", type=int, default=60)
    parser.add_argument("--steps", type=int, default=40, help="of a training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=HERE / "results" / "kills.json")
    options = parser.parse_args()
    here, draw = machine(), random.Random(options.seed)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background would ignore it
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        lab, log = Lab(Path(folder), options.steps), Path(folder) / "log.txt"
        cases, each = lab.cases(), options.kills // 6
        to_its_end(lab._train(), log)
        lab.run.rename(lab._trained())
        for case in cases:
            to_its_end(case.argv(), log)
            if case.target is not None:
                kept(case.target).parent.mkdir(exist_ok=True)
                put(kept(case.target), case.target)
            case.seconds = to_its_end(case.argv(), log)
            for _ in range(each):
                kill(case, draw, log)
            print(
                f"{case.name}: {case.kills} kills in {case.seconds:.2f} s each, {len(case.faults)} faults", flush=True
            )
        cases.append(kill_servers(lab, each, draw, log))
        print(f"serve: {cases[-1].kills} kills, {len(cases[-1].faults)} faults", flush=True)
        between = lab.leftovers()
        for case in cases[:-1]:
            to_its_end(case.argv(), log)
        left = lab.leftovers()
        interrupts = interrupt(lab, options.interrupts, draw) if options.interrupts else None
    report = {
        "what": "kill -9 at uniformly random times, and Ctrl-C and SIGTERM; what has its final name is read in full",
        "command": " ".join(["python", "bench/kills.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "machine": here,
        "kills": sum(case.kills for case in cases),
        "commands": {
            case.name: {
                "kills": case.kills,
                "seconds_of_a_run": round(case.seconds, 2),
                "ended_before_the_kill": case.after_its_end,
                **case.outputs,
                "faults": case.faults,
            }
            for case in cases
        },
        "temporary_files": {"after_the_last_kill": len(between), "after_the_next_run": left},
        "interrupts": interrupts,
    }
    options.output.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps({key: report[key] for key in ("kills", "temporary_files", "interrupts")}, indent=2))
    found = any(case.faults for case in cases) or left or (interrupts or {}).get("faults")
    return 6 if found else 0


if __name__ == "__main__":
    sys.exit(main())
