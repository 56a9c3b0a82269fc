"""Files of earlier states still load, make the pictures they made then, and train on; newer ones are refused."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import cv2
import gantrt
import numpy as np
import onnx
import pytest
import torch
from conftest import ROOT
from gantrt.cli import main
from gantrt.engine_file import read_manifest
from gantrt.manifest import SCHEMA, Manifest
from gantrt_training import checkpoint
from gantrt_training.export import Request, export
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_plan_file import write_plan
from tiny_networks import write_pointwise
from write_earlier import FAMILIES, HALF, RESUMABLE, write_pictures

EARLIER = ROOT / "tests" / "data" / "earlier"
STATES = sorted(path.name.partition(".")[0] for path in EARLIER.glob("*.tar.xz"))
NEWER = SCHEMA + 1
SAFELY: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # not in the first 3.10 and 3.11

pytest.importorskip("openvino")


@pytest.fixture(scope="module", params=STATES)
def then(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a state wrote."""
    folder = tmp_path_factory.mktemp("then") / request.param
    with tarfile.open(EARLIER / f"{request.param}.tar.xz") as files:
        files.extractall(folder, **SAFELY)
    return folder


def picture(path: Path) -> np.ndarray:
    found = cv2.imread(str(path))
    assert found is not None, path
    return found.astype(np.int16)


def translated(engine: Path, given: Path, **options: Any) -> np.ndarray:
    with gantrt.load(engine, device="cpu", color="bgr", cache_dir="", **options) as translator:
        return translator(picture(given).astype(np.uint8)).astype(np.int16)


def test_there_are_states_from_the_first_export_to_the_last_release() -> None:
    assert len(STATES) >= 4


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_an_earlier_engine_makes_the_picture_it_made_then(then: Path, runtime: str) -> None:
    pytest.importorskip(runtime)
    for family in FAMILIES:
        engine, precision = then / f"{family}.onnx", "fp32" if runtime == "openvino" else None
        made = translated(engine, then / "given.png", runtime=runtime, precision=precision)
        assert np.abs(made - picture(then / f"{family}.png")).max() <= 1, family
        assert read_manifest(engine).schema <= SCHEMA


def test_an_earlier_engine_in_half_precision_makes_its_picture(then: Path) -> None:
    for precision in HALF:
        made = translated(then / f"{RESUMABLE}.{precision}.onnx", then / "given.png", runtime="openvino")
        assert (
            np.abs(made - picture(then / f"{RESUMABLE}.{precision}.png")).max() <= 4
        )  # levels; bf16 is a CPU's choice


def test_an_earlier_run_is_exported_to_the_engine_it_was_exported_to_then(then: Path, tmp_path: Path) -> None:
    for run in (path for path in then.iterdir() if path.is_dir()):
        engine = tmp_path / f"{run.name}.onnx"
        export(run, engine, Request(samples=1))
        made = translated(engine, then / "given.png", runtime="openvino", precision="fp32")
        assert np.abs(made - picture(then / f"{run.name}.png")).max() <= 1, run.name


def test_an_earlier_run_is_inspected(then: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(then / RESUMABLE)]) == 0
    assert "3 steps" in capsys.readouterr().out


def test_an_earlier_training_goes_on_as_it_would_have_then(then: Path, tmp_path: Path) -> None:
    """Two steps more: the weights are those that state came to by itself."""
    write_pictures(tmp_path)
    run = shutil.copytree(then / RESUMABLE, tmp_path / "run")
    code = main(["train", "-o", str(run), "--resume", "--steps", "5", "--data", str(tmp_path / "sides"), "-q"])
    assert code == 0
    weights = load_file(checkpoint.weights_path(run, 5))
    for network, wanted in json.loads((EARLIER / "resumed.json").read_text())[then.name].items():
        found = [
            w.double().abs().sum()
            for key, w in weights.items()
            if key.startswith(f"{network}.") and w.is_floating_point()
        ]
        assert float(sum(found)) == pytest.approx(wanted, rel=1e-4), network


# What a newer gantrt wrote ---------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A training of the last state here, to be changed."""
    with tarfile.open(EARLIER / f"{STATES[0]}.tar.xz") as files:
        files.extractall(tmp_path, **SAFELY)
    write_pictures(tmp_path)
    return tmp_path / RESUMABLE


def refused(capsys: pytest.CaptureFixture[str], *command: object) -> str:
    """The one line of a command that exits with 3."""
    assert main([*map(str, command)]) == 3
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert f"schema {NEWER} is newer than this gantrt reads" in lines[0]
    assert "upgrade gantrt" in lines[0]
    return lines[0]


def test_a_newer_engine_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Even one whose fields have other shapes."""
    engine = write_pointwise(tmp_path / "newer.onnx")
    model = onnx.load(engine)
    (entry,) = [entry for entry in model.metadata_props if entry.key == "gantrt"]
    entry.value = json.dumps({"schema": NEWER, "input": ["of", "another", "shape"]})
    onnx.save(model, engine)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    assert str(engine) in refused(capsys, "inspect", engine)
    refused(capsys, "translate", "--engine", engine, tmp_path / "a.png", "-o", tmp_path / "b.png", "-q")


def test_a_newer_plan_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = {"runtime": "tensorrt-rtx", "crc32": "00000000"}
    plan = write_plan(tmp_path / "newer.plan", Manifest(schema=NEWER, target=target))
    assert str(plan) in refused(capsys, "inspect", plan)


def test_newer_weights_are_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = checkpoint.weights_path(run, 3)
    with safe_open(weights, "pt") as file:
        metadata = file.metadata()
    newer = {"schema": NEWER, "networks": {"of": "another shape"}}
    save_file(load_file(weights), weights, metadata | {checkpoint.KEY: json.dumps(newer)})
    assert str(weights) in refused(capsys, "export", run, "-o", run / "engine.onnx", "-q")
    assert str(weights) in refused(capsys, "inspect", weights)
    refused(capsys, "train", "-o", run, "--resume", "--steps", "4", "--data", run.parent / "sides", "-q")


def test_a_newer_state_of_a_training_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = checkpoint.state_path(checkpoint.weights_path(run, 3))
    torch.save({"schema": NEWER, "of": "another shape"}, state)
    line = refused(capsys, "train", "-o", run, "--resume", "--steps", "4", "--data", run.parent / "sides", "-q")
    assert str(state) in line


def test_a_newer_recipe_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = run / "recipe.json"
    recipe.write_text(json.dumps({"schema": NEWER, "networks": "of another shape"}))
    assert str(recipe) in refused(capsys, "train", "-o", run, "--resume", "--steps", "4", "-q")
    assert str(recipe) in refused(capsys, "inspect", run)
    refused(capsys, "export", run, "-o", run / "engine.onnx", "-q")


def test_a_key_that_a_newer_recipe_adds_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = run / "recipe.json"
    recipe.write_text(json.dumps(json.loads(recipe.read_text()) | {"of_tomorrow": 1}))
    assert main(["train", "-o", str(run), "--resume", "--steps", "4", "-q"]) == 3
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"{recipe}: was made by another gantrt (there is no key 'of_tomorrow'" in line


def test_what_is_written_now_carries_its_number(run: Path) -> None:
    assert main(["train", "-o", str(run), "--resume", "--steps", "4", "--data", str(run.parent / "sides"), "-q"]) == 0
    weights = checkpoint.weights_path(run, 4)
    assert json.loads((run / "recipe.json").read_text())["schema"] == SCHEMA
    assert checkpoint.read_description(weights).schema == checkpoint.SCHEMA
    assert torch.load(checkpoint.state_path(weights), weights_only=True)["schema"] == checkpoint.SCHEMA
