"""Two processes on a CPU train as one would with twice the batch; batches accumulate to a larger one."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from gantrt.cli import main as gantrt
from gantrt_training import checkpoint
from gantrt_training.data import Batches, Data
from gantrt_training.distributed import _buckets
from gantrt_training.randomness import rehearsal, seed_everything
from gantrt_training.recipe import make_recipe
from process_of_two import FAMILIES, observe, recipe, start, weights
from safetensors.torch import load_file
from tiny_pictures import make_pairs, make_sides

pytestmark = pytest.mark.usefixtures("tiny_families")


def environment(**more: str) -> dict[str, str]:
    paths = os.pathsep.join([*filter(None, sys.path)])
    return os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | more


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pairs/ and sides/ with odd numbers of pictures."""
    folder = tmp_path_factory.mktemp("two")
    make_pairs(folder / "pairs", train=9)
    make_sides(folder / "sides", a=9, b=13)
    return folder


@pytest.fixture(scope="module")
def two(data: Path) -> list[dict[str, Any]]:
    """What each of two processes saw."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    started = [
        subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "process_of_two.py"), str(data)],
            env=environment(**shared, RANK=str(rank), LOCAL_RANK=str(rank), TORCHELASTIC_RUN_ID="test"),
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=240)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], "\n".join(errors)
    return [torch.load(data / f"seen_{rank}.pt") for rank in range(2)]


def assert_same_training(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Equal up to the order of summation: the losses of each step, and the first gradients.

    Weights would not do: Adam makes a full step of a gradient that is zero but for rounding, as that of a bias in
    front of InstanceNorm.
    """
    for mine, theirs in zip(one["curve"], other["curve"], strict=True):
        assert mine == pytest.approx(theirs, rel=2e-3, abs=2e-5)
    assert one["curve"][0] == pytest.approx(other["curve"][0], rel=1e-5, abs=1e-6)
    assert one["gradients"].keys() == other["gradients"].keys()
    nets = {name.partition(".")[0] for name in one["gradients"]}
    for net in nets:
        pairs = [(g, other["gradients"][name]) for name, g in one["gradients"].items() if name.startswith(f"{net}.")]
        largest = max(float(g.abs().max()) for g, _ in pairs)
        assert largest > 0
        assert max(float((mine - theirs).abs().max()) for mine, theirs in pairs) < 1e-4 * largest, net


@pytest.mark.parametrize("family", FAMILIES)
def test_two_processes_train_as_one_with_twice_the_batch(family: str, data: Path, two: list[dict[str, Any]]) -> None:
    alone = observe(*start(recipe(data, family, batch=4)))
    assert two[0][family]["curve"] == two[1][family]["curve"]
    assert_same_training(two[0][family], alone)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_processes_have_the_same_weights_to_the_bit(family: str, two: list[dict[str, Any]]) -> None:
    first, second = (seen[family]["weights"] for seen in two)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("family", ["cyclegan", "ugatit"])
def test_accumulated_batches_train_as_a_larger_one(family: str, data: Path, two: list[dict[str, Any]]) -> None:
    """In one process and in two; the power iterations of U-GAT-IT's judges included."""
    large = observe(*start(recipe(data, family, batch=4)))
    small = observe(*start(recipe(data, family, batch=1, accumulate=4)))
    assert_same_training(small, large)
    assert_same_training(two[0][f"{family}_accumulated"], large)
    for name in large["weights"]:
        if name.endswith(("weight_u", "weight_v")):
            assert torch.allclose(small["weights"][name], large["weights"][name], atol=2e-3), name


@pytest.mark.parametrize("family", FAMILIES)
def test_an_accumulated_step_of_one_batch_is_the_plain_step(family: str, data: Path) -> None:
    """Making the pictures again, as accumulation does, changes no bit: dropout and BatchNorm draw and count once."""
    dropout = {"dropout": 0.5} if family in ("pix2pix", "tiny_paired", "cyclegan") else {}
    made = recipe(data, family, batch=2, **dropout)
    plain, batches = start(made)
    again, _ = start(made)
    make, passes = again._make, []

    def twice(batches: Any, due: Any) -> list[Any]:
        with rehearsal([again.nets[name] for name in again.family.generators.values()]):
            passes.append(make(batches[0], graph=False))
        return [make(batches[0], graph=any(map(again._moves_generators, due)))]

    again._forward = twice  # type: ignore[method-assign]
    for training in (plain, again):
        seed_everything(5)
        observe(training, batches)
    assert len(passes) == 4
    one, other = weights(plain), weights(again)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_judge_s_turn_before_the_generator_s_sees_the_same_pictures(data: Path) -> None:
    """pix2pix with dropout: what D was shown of each accumulated batch is what G is then judged by."""
    training, batches = start(recipe(data, "pix2pix", batch=1, accumulate=2, dropout=0.5))
    seen: dict[bool, list[torch.Tensor]] = {False: [], True: []}
    make = training._make

    def watched(batch: Any, graph: bool) -> Any:
        made = make(batch, graph)
        seen[graph].append(made["fake_b"].detach())
        return made

    training._make = watched  # type: ignore[method-assign]
    observe(training, batches)
    assert len(seen[True]) == 8
    assert all(torch.equal(one, other) for one, other in zip(seen[False], seen[True], strict=True))


@pytest.mark.parametrize("family", ["tiny_paired", "tiny_unpaired"])
def test_two_processes_resume_exactly(family: str, two: list[dict[str, Any]]) -> None:
    """Each with its own dropout, pool and running statistics."""
    for seen in two:
        resumed = seen[f"{family}_resumed"]
        assert resumed["same_draws"]
        assert all(torch.equal(resumed["through"][name], resumed["again"][name]) for name in resumed["through"])
        for one, other in zip(*resumed["pools"], strict=True):
            assert all(torch.equal(x, y) for x, y in zip(one, other, strict=True))
    first, second = (seen[f"{family}_resumed"] for seen in two)
    if family == "tiny_unpaired":
        assert not torch.equal(first["pools"][0][0][0], second["pools"][0][0][0])


def test_processes_agree(two: list[dict[str, Any]]) -> None:
    for seen in two:
        agreed = seen["agree"]
        assert agreed["average"] == [[0.5], [1.5], [2.5]]
        assert agreed["any"] == [False, True]
        assert agreed["first"] == 0
        assert agreed["refused"] == "only the first tried"
    assert [got["rank"] for got in two[0]["agree"]["gather"]] == [0, 1]
    assert two[1]["agree"]["gather"] == []


def test_messages_are_large_but_bounded() -> None:
    sizes = [5, 20 << 20, 1, 10 << 20, 10 << 20]
    buckets = _buckets([torch.empty(1).expand(size) for size in sizes])
    assert [[tensor.numel() for tensor in bucket] for bucket in buckets] == [[5], [20 << 20], [1, 10 << 20], [10 << 20]]


@pytest.mark.parametrize("processes", [2, 3])
def test_together_processes_see_what_one_sees(processes: int, data: Path) -> None:
    made = make_recipe("tiny_unpaired", data / "sides")
    pictures = Data(Path(made.data), (1, 1), made.preparation(), paired=False)
    alone = Batches(pictures, 2 * processes, 7)
    shares = [Batches(pictures, 2, 7, share=(rank, processes)) for rank in range(processes)]
    assert {share.steps_per_epoch for share in shares} == {alone.steps_per_epoch}
    for step in range(2 * alone.steps_per_epoch):
        parts = zip(*(share.load(step) for share in shares), strict=True)
        for whole, part in zip(alone.load(step), parts, strict=True):
            assert torch.equal(whole, torch.cat(list(part)))


def torchrun(*args: Path | str, processes: int = 2) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [*launcher, "-m", "gantrt", "train", *map(str, args)]


@pytest.mark.slow
def test_torchrun_trains_stops_at_ctrl_c_and_resumes(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    small = ["size=16", "ngf=4", "ndf=4", "n_blocks=1", "d_layers=2", "log_every=1", "sample_every=0"]
    command = torchrun("cyclegan", "--data", data / "sides", "-o", run, "--device", "cpu", "--set", *small)
    process = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (run / "log.jsonl").is_file() or not (run / "log.jsonl").read_text().count("\n") > 2:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    saved = checkpoint.newest_resumable(run)
    assert saved is not None, errors
    steps = checkpoint.read_description(saved).step
    assert re.search(rf"saved step {steps} of \d+; --resume goes on from there", errors)
    assert errors.count("goes on from there") == 1

    assert gantrt(["train", "-o", str(run), "--resume", "--device", "cpu", "-q"]) == 2  # one process alone
    more = torchrun("-o", run, "--resume", "--steps", steps + 2, "--no-progress")
    done = subprocess.run(more, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(checkpoint.weights_path(run, steps + 2))
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, steps + 3))
    assert load_file(checkpoint.weights_path(run, steps + 2))


@pytest.mark.slow
def test_a_picture_that_one_process_cannot_read_stops_all_with_a_checkpoint(tmp_path: Path) -> None:
    make_sides(tmp_path / "sides", a=20, b=20)
    (tmp_path / "sides" / "trainA" / "3.png").write_bytes(b"broken")
    small = ["size=16", "ngf=4", "ndf=4", "n_blocks=1", "d_layers=2", "max_unreadable=0", "sample_every=0"]
    run = ["-o", tmp_path / "run", "--device", "cpu"]
    command = torchrun("cyclegan", "--data", tmp_path / "sides", *run, "--set", *small)
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.count("3.png: is damaged, or no picture") == 1
    saved = re.search(r"another process could not go on and says why; saved step (\d+)", done.stderr)
    assert saved is not None, done.stderr
    assert checkpoint.newest_resumable(tmp_path / "run") == checkpoint.weights_path(tmp_path / "run", int(saved[1]))
