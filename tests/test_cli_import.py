"""`gantrt import` as typed: from another code-base's file to an engine, and what it says when that cannot be."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import foreign_networks as foreign
import pytest
import torch
from gantrt.cli import main
from gantrt.engine_file import read_manifest
from gantrt_training.checkpoint import load_run

pytest.importorskip("onnxruntime")


@pytest.fixture
def unet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file of pix2pix's authors in the current folder, which is empty otherwise."""
    monkeypatch.chdir(tmp_path)
    torch.save(foreign.scramble(foreign.UnetGenerator(5)).state_dict(), "latest_net_G.pth")
    return "latest_net_G.pth"


def run_import(*words: object) -> int:
    return main(["import", *map(str, words)])


def test_imported_run_is_exported_without_further_flags(unet, capsys) -> None:
    assert run_import(unet, "-o", "run") == 0
    printed, logged = capsys.readouterr()
    assert printed.splitlines()[0].startswith("run  ")
    assert printed.splitlines()[1] == "pix2pix of pytorch-CycleGAN-and-pix2pix: g_ab"
    assert "ngf=4, downs=5, size=32, norm=batch" in printed
    assert "each picture's own statistics" in printed
    assert "dropout" in logged
    assert sorted(str(path) for path in Path("run").rglob("*") if path.is_file()) == [
        "run/checkpoints/step_0000000.safetensors",
        "run/recipe.json",
    ]
    assert main(["export", "run", "-o", "engine.onnx"]) == 0
    manifest = read_manifest(Path("engine.onnx"))
    assert (manifest.family, manifest.direction, manifest.norm_mode) == ("pix2pix", "a2b", "instance")
    assert (manifest.input.height, manifest.input.width) == (32, 32)
    assert manifest.parity["max_abs"] < 2e-4


def test_flags_overrule_what_is_usual(unet, capsys) -> None:
    torch.save(foreign.ResnetGenerator(norm="batch").state_dict(), "latest_net_G_B.pth")
    words = ["--size", "64x64", "--norm-mode", "running", "--dropout", "off", "--family", "cyclegan"]
    assert run_import("latest_net_G_B.pth", "-o", "run", *words) == 0
    loaded = load_run("run")
    assert (loaded.config.size, loaded.description.norm_mode, loaded.description.networks) == (64, "running", ("g_ba",))
    assert "256" not in capsys.readouterr().err
    assert json.loads(Path("run/recipe.json").read_text())["config"]["size"] == 64
    assert run_import("latest_net_G_B.pth", "-o", "run", "--network", "G_A", "--overwrite") == 0
    assert load_run("run").description.networks == ("g_ab",)


def test_inspect_says_where_a_run_comes_from(unet, capsys) -> None:
    assert run_import(unet, "-o", "run", "-q") == 0
    assert main(["inspect", "run"]) == 0
    assert "imported from pytorch-CycleGAN-and-pix2pix" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["nowhere.pth", "-o", "run"], 5, "does not exist"),
        ([".", "-o", "run"], 5, "is no file"),
        (["text.pth", "-o", "run"], 3, "is no checkpoint"),
        (["cut_off.pth", "-o", "run"], 3, "is damaged"),
        (["evil.pth", "-o", "run"], 3, "would call posix.system"),
        (["other.pth", "-o", "run"], 3, "no network in it is one we know"),
        (["latest_net_G.pth", "-o", "run", "--family", "ugatit"], 2, "leave out --family"),
        (["latest_net_G.pth", "-o", "run", "--family", "pix3pix"], 2, "there are cyclegan, discogan"),
        (["latest_net_G.pth", "-o", "run", "--network", "genA2B"], 2, "'genA2B' is no network of pytorch-Cyc"),
        (["latest_net_G.pth", "-o", "run", "--size", "64x64"], 2, "was made for 32x32"),
        (["latest_net_G.pth", "-o", "run", "--size", "32x64"], 2, "was made for 32x32"),
        (["resnet.pth", "-o", "run", "--size", "32x30"], 2, "32x30: this cyclegan takes multiples of 4"),
        (["latest_net_G.pth", "latest_net_G.pth", "-o", "run"], 2, "choose one file, or --network"),
        (["resnet.pth", "-o", "run", "--size", "30x30"], 2, "multiples of 4"),
        (["resnet.pth", "-o", "run", "--norm-mode", "running"], 2, "has no BatchNorm"),
        (["resnet.pth", "latest_net_G.pth", "-o", "run"], 2, "different families"),
        (["latest_net_G.pth", "-o", "full"], 1, "is not empty"),
        (["latest_net_G.pth", "-o", "full", "--overwrite"], 1, "holds more than an import"),
        (["latest_net_G.pth", "-o", "text.pth/run"], 1, "cannot be written"),
    ],
)
def test_what_cannot_be_imported_ends_with_its_code_and_one_line(unet, capsys, words, code, text) -> None:
    Path("text.pth").write_text("these are no weights")
    Path("cut_off.pth").write_bytes(Path(unet).read_bytes()[:-2000])
    torch.save({"model.1.weight": torch.ones(4, 3, 7, 7), "more": _Command()}, "evil.pth")
    torch.save({"weight": torch.ones(3)}, "other.pth")
    torch.save(foreign.ResnetGenerator().state_dict(), "resnet.pth")
    Path("full").mkdir()
    Path("full/mine.txt").write_text("mine")
    before = sorted(path for path in Path().rglob("*"))
    assert run_import(*words, "-q") == code
    printed, logged = capsys.readouterr()
    assert not printed
    assert text in logged
    assert logged.count("\n") == 1
    assert sorted(path for path in Path().rglob("*")) == before


class _Command:
    def __reduce__(self) -> Any:
        return os.system, ("touch was_here",)


def test_a_checkpoint_of_ours_needs_no_import(unet, capsys) -> None:
    assert run_import(unet, "-o", "run") == 0
    assert run_import("run/checkpoints/step_0000000.safetensors", "-o", "again") == 2
    assert "takes it as it is" in capsys.readouterr().err
