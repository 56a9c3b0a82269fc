"""The bench beside the original code-bases, on stand-ins for them: the same files and names, tiny steps of our own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from conftest import ROOT
from gantrt_training.family import load_family

CYCLEGAN = {
    "options/__init__.py": "",
    "options/base_options.py": "class BaseOptions: ...",
    "options/train_options.py": """
import argparse
import torchvision.transforms as transforms
default = transforms.InterpolationMode.BICUBIC
class TrainOptions:
    def parse(self):
        parser = argparse.ArgumentParser()
        for name in ("dataroot", "checkpoints_dir", "model", "netG"):
            parser.add_argument(f"--{name}")
        for name in ("ngf", "ndf", "batch_size", "crop_size"):
            parser.add_argument(f"--{name}", type=int)
        return parser.parse_args()
""",
    "models/__init__.py": """
import sys, torch
from gantrt_training.family import load_family
class Model:
    def __init__(self, opt):
        family = load_family("cyclegan")
        assert opt.netG == "resnet_6blocks"
        nets = family.build(family.Config(ngf=opt.ngf, ndf=opt.ndf + WIDER, n_blocks=6))
        self.netG_A, self.netG_B, self.netD_A, self.netD_B = nets["g_ab"], nets["g_ba"], nets["d_b"], nets["d_a"]
        self.optimizer_G, self.optimizer_D = (
            torch.optim.Adam([p for name in names for p in nets[name].parameters()])
            for names in (("g_ab", "g_ba"), ("d_a", "d_b"))
        )
    def setup(self, opt):
        print("---------- Networks initialized -------------")
    def set_input(self, data):
        assert data["A"].shape == (1, 3, 32, 32)
    def optimize_parameters(self):
        sys.modules["events"].theirs()
        for optimizer in (self.optimizer_G, self.optimizer_D):
            optimizer.zero_grad()
            sum(p.square().sum() for group in optimizer.param_groups for p in group["params"]).backward()
            optimizer.step()
WIDER = 0
def create_model(opt):
    return Model(opt)
""",
}
UGATIT = {
    "main.py": """
import argparse
from utils import *
def parse_args():
    parser = argparse.ArgumentParser()
    for name in "dataset light batch_size print_freq save_freq ch n_res img_size device".split():
        parser.add_argument(f"--{name}")
    return parser.parse_args()
""",
    "utils.py": "from scipy import misc",
    "UGATIT.py": """
import torch
from torchvision import transforms
class UGATIT:
    def __init__(self, args):
        self.made = 0
    def build_model(self):
        transforms.Compose([transforms.ToTensor()])
        for name in "genA2B genB2A disGA disGB disLA disLB".split():
            setattr(self, name, torch.nn.Linear(1, 1))
        self.G_optim = torch.optim.Adam(self.genA2B.parameters())
        self.D_optim = torch.optim.Adam(self.disGA.parameters())
    def train(self):
        for step in range(100):
            try:
                real_A, _ = trainA_iter.next()
            except:
                trainA_iter = iter(self.trainA_loader)
                real_A, _ = trainA_iter.next()
            try:
                real_B, _ = trainB_iter.next()
            except:
                trainB_iter = iter(self.trainB_loader)
                real_B, _ = trainB_iter.next()
            self.genA2B(real_A[:, :, :, :1] + real_B[:, :, :, :1]).sum().backward()
            self.G_optim.step()
""",
}
DISCOGAN = {
    "discogan/model.py": "import ipdb\nfrom torch import nn\nclass Generator(nn.Linear): ...\n",
    "discogan/image_translation.py": """
import argparse, scipy, torch
import torch.nn as nn
from dataset import *
from model import *
from progressbar import ETA, Bar, Percentage, ProgressBar
def main():
    parser = argparse.ArgumentParser()
    for name in "cuda batch_size image_size result_path model_path log_interval".split():
        parser.add_argument("--" + name)
    for name in "image_save_interval model_save_interval".split():
        parser.add_argument("--" + name)
    args = parser.parse_args()
    data_A, data_B = get_facescrub_files(test=False, n_test=200)
    test_A = torch.FloatTensor(read_images(get_facescrub_files(test=True, n_test=200)[0], None, 8))
    test_B = torch.FloatTensor(read_images(get_facescrub_files(test=True, n_test=200)[1], None, 8))
    generator_A = generator_B = discriminator_A = discriminator_B = Generator(8, 1)
    optim_gen = optim_dis = torch.optim.Adam(generator_A.parameters())
    criterion = nn.BCELoss()
    data_A, data_B = shuffle_data(data_A, data_B)
    pbar = ProgressBar(maxval=len(data_A), widgets=[Percentage(), Bar(), ETA()])
    pbar.start()
    for i in range(len(data_A)):
        pbar.update(i)
        A = torch.FloatTensor(read_images(data_A[i * 2: (i + 1) * 2], None, 8))
        assert float(A.min()) >= 0
        judged = torch.sigmoid(generator_A(A).mean((1, 2, 3), keepdim=True))
        criterion(judged, torch.ones([2, 1]).cuda()).backward()
        optim_gen.step()
        if i == 0:
            print "LOSS:", 1
            scipy.misc.imsave(args.result_path + ".jpg", np.zeros(1))
""",
}


def clone(folder: Path, files: dict[str, str], *, git: bool = False) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    if git:
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        for words in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "all"]):
            subprocess.run(["git", "-C", str(folder), *words], check=True)
    return folder


@pytest.fixture
def originals(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    import originals

    return originals


def run(bench: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    command = ["originals.py", *words, "--device", "cpu", "--no-memory"]
    monkeypatch.setattr(sys, "argv", command)
    bench.main()


def test_sides_take_turns_and_a_row_tells_its_ratio_and_its_work(
    originals: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, events, clock = clone(tmp_path / "cyclegan", CYCLEGAN, git=True), [], [0.0]

    def theirs() -> None:  # takes a second
        events.append("theirs")
        clock[0] += 1.0

    def timed(step: Any, turn: int, device: torch.device) -> float:  # half a second, for each step of ours
        assert turn == 1
        events.append("ours")
        step()
        clock[0] += 0.5
        return 0.5

    monkeypatch.setitem(sys.modules, "events", ModuleType("events"))
    sys.modules["events"].theirs = theirs  # type: ignore[attr-defined]
    monkeypatch.setattr(originals, "timed", timed)
    monkeypatch.setattr(originals.Turns, "_now", lambda _: clock[0])
    words = ["--cyclegan", str(folder), "--family", "cyclegan", "--variant", "plain", "together"]
    modules = set(sys.modules)
    run(originals, monkeypatch, *words, "--size", "32", "--ngf", "2", "--steps", "4", "-o", str(tmp_path))

    assert events == ["theirs"] * 3 + ["theirs", "ours", "ours"] * 4  # three to warm up, then turns
    report = json.loads((tmp_path / "originals_cpu.json").read_text())
    head = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert report["originals"]["cyclegan"]["commit"] == head.stdout.strip()
    rows = {row["side"]: row for row in report["rows"]}
    assert {side: row["ratio"] for side, row in rows.items()} == {"original": 1.0, "plain": 2.0, "together": 2.0}
    assert {side: row["images_per_s"] for side, row in rows.items()} == {"original": 1.0, "plain": 2.0, "together": 2.0}
    for row in rows.values():
        assert (row["turns"], row["steps"], row["size"], row["ngf"]) == (4, 4, 32, 2)
        assert row["updates"] == {"d": 7, "g": 7}
        assert row["parameters"] == rows["original"]["parameters"]
    assert not {name for name in set(sys.modules) - modules if name.partition(".")[0] in ("models", "options")}
    assert "torchvision" not in set(sys.modules) - modules
    assert not list(folder.rglob("__pycache__"))


def test_networks_of_other_sizes_are_refused_in_a_line(
    originals: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wider = CYCLEGAN | {"models/__init__.py": CYCLEGAN["models/__init__.py"].replace("WIDER = 0", "WIDER = 1")}
    folder = clone(tmp_path / "cyclegan", wider)
    words = ["--cyclegan", str(folder), "--family", "cyclegan", "--variant", "plain", "--size", "32", "--ngf", "2"]
    with pytest.raises(SystemExit, match=r"^originals: cyclegan: networks have .* in gantrt, .* in the original$"):
        run(originals, monkeypatch, *words, "-o", str(tmp_path))
    assert not list(tmp_path.glob("*.json"))


def test_other_updates_are_an_error_and_no_ratio(originals: ModuleType) -> None:
    family = load_family("discogan")
    config = family.Config(ngf=1, ndf=1, size=16)
    nets = family.build(config)
    optimizers = family.optimizers(nets, config)
    assert originals.updates(optimizers) == {"d": 0, "g": 0}
    for _ in range(2):
        sum(p.sum() for p in nets["g_ab"].parameters()).backward()
        optimizers["g"].step()
    assert originals.updates(optimizers) == {"d": 0, "g": 2}

    class Side:
        def __init__(self, optimizers: Any) -> None:
            self.nets, self.optimizers = nets, optimizers

    fresh = family.optimizers(nets, config)
    args = originals.argparse.Namespace(steps=3, seconds=None)
    job = originals.Job("discogan", config, torch.device("cpu"))
    turns = originals.Turns(job, {"plain": (Side(optimizers), None)}, args)
    assert (turns.turn, turns.turns) == (3, 3)  # all networks of DiscoGAN have learned after three steps
    turns.parts = originals.Parts(dict(nets.items()), fresh)
    assert turns.row("plain") == {"error": "made {'d': 0, 'g': 2} updates, the original {'d': 0, 'g': 0}"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--ugatit", "{cyclegan}"], "is no clone of UGATIT-pytorch, whose UGATIT.py has 'class UGATIT'; git clone"),
        (["--cyclegan", "{changed}"], "is changed against its commit (options/base_options.py); give a clone"),
        (["--cyclegan", "{cyclegan}", "--size", "64"], "none for 64; give --size 128"),
        (["--family", "discogan", "--cyclegan", "{cyclegan}"], "give the clones of what is to be timed: --ugatit DIR"),
        (["--cyclegan", "{cyclegan}", "--steps", "1000"], "--steps is at most 900"),
    ],
)
def test_what_cannot_be_timed_is_refused_in_a_line(
    words: list[str],
    said: str,
    originals: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folders = {"cyclegan": clone(tmp_path / "cyclegan", CYCLEGAN)}
    if "{changed}" in words:
        folders["changed"] = clone(tmp_path / "changed", CYCLEGAN, git=True)
        (folders["changed"] / "options/base_options.py").write_text("class BaseOptions: fast = True")
    with pytest.raises(SystemExit) as stopped:
        run(originals, monkeypatch, *(word.format(**folders) for word in words), "-o", str(tmp_path / "out"))
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "files"), [("ugatit", UGATIT), ("discogan", DISCOGAN)])
def test_a_loop_of_theirs_is_stopped_ahead_of_a_step(
    name: str, files: dict[str, str], originals: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[dict[str, int]] = []

    def before(parts: Any) -> None:
        made.append(originals.updates(parts.optimizers))
        if len(made) == 4:
            raise originals.Enough

    code_base = originals.CODE_BASES[name]
    folder = clone(tmp_path / name, files)
    assert code_base.refusal(folder) is None
    config = load_family(name).Config(batch=2, size=8)
    with pytest.raises(originals.Enough):
        code_base.run(folder, originals.Job(name, config, torch.device("cpu")), before)
    assert [steps["g"] for steps in made] == [0, 1, 2, 3]
    assert capsys.readouterr().out == ""
    assert not list(folder.rglob("__pycache__"))
    assert torch.nn.BCELoss.__module__.startswith("torch.")
