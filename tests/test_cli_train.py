"""gantrt train, as a user types it, and on real pictures."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from gantrt.cli import main
from gantrt_training.checkpoint import load_run
from gantrt_training.family import list_families
from tiny_pictures import make_pairs, make_sides

pytestmark = pytest.mark.usefixtures("tiny_families")
QUICK = ["--set", "sample_every=0", "log_every=1", "-q"]


def train(*args: Path | str) -> int:
    return main(["train", *map(str, args)])


def test_it_trains_and_prints_where_the_weights_lie(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_pairs(tmp_path / "data")
    run = tmp_path / "run"
    code = train("tiny_paired", "--data", tmp_path / "data", "-o", run, "--steps", "3", "--device", "cpu", *QUICK)
    assert code == 0
    assert Path(capsys.readouterr().out.strip()) == run / "checkpoints" / "step_0000003.safetensors"
    assert load_run(run).step == 3


def test_resume_takes_everything_from_the_run(tmp_path: Path) -> None:
    make_sides(tmp_path / "data")
    run = tmp_path / "run"
    assert train("tiny_unpaired", "--data", tmp_path / "data", "-o", run, "--set", "lr=0.01", "steps=2", *QUICK) == 0
    assert train("-o", run, "--resume", "--steps", "4", "-q") == 0
    assert (load_run(run).step, load_run(run).config.lr) == (4, 0.01)
    assert train("tiny_paired", "-o", run, "--resume", "-q") == 2
    assert train("-o", tmp_path / "nowhere", "--resume", "-q") == 2


def test_epochs_set_the_length_and_the_schedule(tmp_path: Path) -> None:
    make_pairs(tmp_path / "data", train=6)
    run = tmp_path / "run"
    assert train("tiny_paired", "--data", tmp_path / "data", "-o", run, "--epochs", "4", *QUICK) == 0
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert len(lines) == 4 * 3
    assert lines[-1]["lr_g"] == pytest.approx(2e-3 / 12)


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["cycle"], 2, "no family 'cycle'; there are cyclegan, discogan"),
        ([], 2, "no family; give one of"),
        (["tiny_paired", "--preset", "x"], 2, "no preset 'x'; there are paper"),
        (["tiny_paired", "--set", "x=1"], 2, "no key 'x'"),
        (["tiny_paired", "--set", "width"], 2, "must be key=value"),
        (["tiny_paired", "--set", "width=wide"], 2, "width=wide: must be a whole number"),
        (["tiny_paired", "--steps", "0"], 2, "steps must be at least 1"),
        (["tiny_paired"], 5, "no pictures; give --data DIR"),
        (["tiny_paired", "--data", "."], 2, "give -o RUN"),
        (["tiny_paired", "--data", "nowhere", "-o", "run"], 5, "nowhere does not exist; expected trainA/ and trainB/"),
        (["tiny_paired", "--data", ".", "-o", "run"], 5, "has no training pictures; expected trainA/"),
        (["tiny_paired", "--data", ".", "-o", "run", "--device", "gpu"], 2, "no device 'gpu'"),
    ],
)
def test_a_request_that_cannot_be_met_is_one_line_and_leaves_nothing(
    args: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train(*args) == code
    errors = capsys.readouterr().err.strip()
    assert message in errors
    assert "\n" not in errors
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("library", ["torch", "lightning_fabric", "safetensors"])
def test_without_torch_the_command_that_installs_it_is_named(
    library: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "gantrt_training"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    assert train("cyclegan", "--data", ".", "-o", "run") == 4
    assert f'{library} is not installed; pip install "gantrt[train]"' in capsys.readouterr().err


def test_presets_and_configs_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--list-presets") == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} >= set(list_families())
    assert train("cyclegan", "--show-config", "--set", "ngf=32") == 0
    assert "ngf = 32 " in capsys.readouterr().out


def test_pix2pix_trains_on_facades(data_dir: Path, tmp_path: Path) -> None:
    small = ["size=32", "ngf=4", "ndf=4", "batch=2", "swap=true", "max_pictures=8", "samples=2"]
    assert (
        train("pix2pix", "--data", data_dir / "facades", "-o", tmp_path / "run", "--steps", "3", "--set", *small) == 0
    )
    assert cv2.imread(str(tmp_path / "run" / "samples" / "step_0000003.png")).shape == (3 * 34 - 2, 2 * 34 - 2, 3)


def test_ugatit_trains_on_selfies(data_dir: Path, tmp_path: Path) -> None:
    small = ["size=32", "ngf=4", "ndf=4", "n_blocks=1", "light=true", "samples=1"]
    code = train("ugatit", "--data", data_dir / "selfie2anime", "-o", tmp_path / "run", "--steps", "2", "--set", *small)
    assert code == 0


def test_cyclegan_learns_to_reconstruct_digits(data_dir: Path, tmp_path: Path) -> None:
    files = [next((data_dir / "mnist").glob(f"t10k-{kind}*")) for kind in ("images", "labels")]
    images, labels = (np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8) for file in files)
    digits = images[16:].reshape(-1, 28, 28)
    for digit, side in ((6, "A"), (9, "B")):
        folder = tmp_path / "data" / f"train{side}"
        folder.mkdir(parents=True)
        for n, picture in enumerate(digits[labels[8:] == digit][:64]):
            cv2.imwrite(str(folder / f"{n}.png"), picture)
    small = ["ngf=8", "ndf=8", "batch=8", "log_every=10", "lr=0.001"]
    args = ["--data", tmp_path / "data", "-o", tmp_path / "run", "--preset", "mnist", "--steps", "40", "--set", *small]
    assert train("cyclegan", *args) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["g_cycle_a"] < 0.6 * lines[0]["g_cycle_a"]
