"""The training steps of the code-bases that people use, reached in their own clones, which stay as they are.

Each of the functions here builds a code-base's networks, losses and optimisers by its own options and code, and makes
its steps, calling `before` ahead of each: what lies between two calls is one step, whole. It ends when `before` raises.
Pictures lie in memory on the device; what is printed goes nowhere, nothing is drawn or saved after the first step.
What only their import lines want (torchvision, scipy.misc, ipdb) is stood in for where it is missing.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.optim import Optimizer

NEVER = 10**9  # steps


@dataclass(frozen=True)
class Job:
    """What both sides do alike."""

    family: str
    config: Any  # our side's: widths, size, batch
    device: torch.device

    def pictures(self, low: float = -1.0) -> tuple[Tensor, Tensor]:
        """A and B, random in [low, 1], (batch, channels, size, size) on the device."""
        c = self.config
        shapes = [(c.batch, channels, c.size, c.size) for channels in (c.channels_a, c.channels_b)]
        a, b = (torch.rand(shape, device=self.device) * (1 - low) + low for shape in shapes)
        return a, b


@dataclass(frozen=True)
class Parts:
    """Their networks and optimisers, under the names that ours have."""

    nets: dict[str, nn.Module]
    optimizers: dict[str, Optimizer]  # "g" and "d"


Before = Callable[[Parts], None]


@dataclass(frozen=True)
class CodeBase:
    name: str
    url: str
    says: dict[str, str]  # file → what stands in it: by these a clone is known
    steps: Callable[[Path, Job, Before], NoReturn]

    def refusal(self, folder: Path) -> str | None:
        """Why the folder is no clone of it as it was published, in a line."""
        for name, words in self.says.items():
            if not (folder / name).is_file() or words not in (folder / name).read_text():
                return f"{folder} is no clone of {self.name}, whose {name} has '{words}'; git clone {self.url}"
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", "*.py").split()[1:]
        if changed:
            return f"{folder} is changed against its commit ({changed[0]}); give a clone as it was published"
        return None

    def run(self, folder: Path, job: Job, before: Before) -> NoReturn:
        """Make steps until `before` raises."""
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            self.steps(folder.resolve(), job, before)


def commit(folder: Path) -> str | None:
    """None of a folder that is no git clone."""
    return _git(folder, "rev-parse", "HEAD").strip() or None


def _git(folder: Path, *words: str) -> str:
    """What git says of this clone; nothing if it is none, or only a part of another."""
    command = ["git", "-C", str(folder), *words]
    with contextlib.suppress(FileNotFoundError):
        if (folder / ".git").exists():
            return subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return ""


def _ugatit(folder: Path, job: Job, before: Before) -> NoReturn:
    """UGATIT.train() itself: `before` is where it asks for a picture of A, once a step and first of all."""
    config = job.config
    with tempfile.TemporaryDirectory() as data, _at_home(folder, "torchvision", "scipy.misc"):
        for name in ("trainA", "trainB", "testA", "testB"):  # its loaders are built on these, then replaced
            (Path(data) / name).mkdir()
            Image.new("RGB", (8, 8)).save(Path(data) / name / "1.png")
        options = {
            "dataset": data,
            "light": config.light,
            "batch_size": config.batch,
            "print_freq": NEVER,
            "save_freq": NEVER,
            "ch": config.ngf,
            "n_res": config.n_blocks,
            "img_size": config.size,
            "device": job.device.type,
        }
        with _command_line("main.py", options):
            gan = importlib.import_module("UGATIT").UGATIT(importlib.import_module("main").parse_args())
        gan.build_model()
        nets = {"g_ab": gan.genA2B, "g_ba": gan.genB2A, "d_a_global": gan.disGA, "d_b_global": gan.disGB}
        nets |= {"d_a_local": gan.disLA, "d_b_local": gan.disLB}
        parts = Parts(nets, {"g": gan.G_optim, "d": gan.D_optim})
        a, b = job.pictures()
        gan.trainA_loader, gan.trainB_loader = _Loader(a, lambda: before(parts)), _Loader(b)
        gan.train()
    raise AssertionError("train() ended by itself")


class _Loader:
    """The same batch for ever, by `next()`, which train() calls and torch's own loaders no longer have.

    train() tries a second time whatever the first one raised: what ended this stays raised.
    """

    def __init__(self, pictures: Tensor, before: Callable[[], None] = lambda: None) -> None:
        self._batch, self._before = (pictures, 0), before
        self._end: BaseException | None = None

    def __iter__(self) -> _Loader:
        return self

    def next(self) -> tuple[Tensor, int]:
        if self._end is None:
            try:
                self._before()
            except BaseException as end:
                self._end = end
        if self._end is not None:
            raise self._end
        return self._batch

    __next__ = next  # what makes it an iterator today


def _cyclegan(folder: Path, job: Job, before: Before) -> NoReturn:
    """CycleGAN or pix2pix: set_input and optimize_parameters, which are train.py's step."""
    config, pix2pix = job.config, job.family == "pix2pix"
    with tempfile.TemporaryDirectory() as scratch, _at_home(folder, "torchvision", "torchvision.transforms"):
        options = {
            "dataroot": scratch,
            "checkpoints_dir": scratch,
            "model": "pix2pix" if pix2pix else "cycle_gan",
            "netG": f"unet_{config.size}" if pix2pix else f"resnet_{config.n_blocks}blocks",
            "ngf": config.ngf,
            "ndf": config.ndf,
            "batch_size": config.batch,
            "crop_size": config.size,
        }
        if "--gpu_ids" in (folder / "options" / "base_options.py").read_text():  # until 2025
            options["gpu_ids"] = -1 if job.device.type == "cpu" else job.device.index or 0
        with _command_line("train.py", options):
            opt = importlib.import_module("options.train_options").TrainOptions().parse()
        opt.device = job.device
        model = importlib.import_module("models").create_model(opt)
        model.setup(opt)
        if pix2pix:
            nets = {"g_ab": model.netG, "d_b": model.netD}
        else:  # their D_A judges what G_A makes, which are pictures of B
            nets = {"g_ab": model.netG_A, "g_ba": model.netG_B, "d_a": model.netD_B, "d_b": model.netD_A}
        parts = Parts(nets, {"g": model.optimizer_G, "d": model.optimizer_D})
        a, b = job.pictures()
        while True:
            before(parts)
            model.set_input({"A": a, "B": b, "A_paths": [], "B_paths": []})
            model.optimize_parameters()


def _discogan(folder: Path, job: Job, before: Before) -> NoReturn:
    """main() of image_translation.py itself: `before` is where it moves its progress bar, once a step and first of all.

    The file is of Python 2 and torch 0.1, and as it is runs nowhere today. So its print lines are read as calls, the
    module that reads pictures is stood in for, labels take the shape of what is judged as at that time they did by
    themselves, and on a CPU `.cuda()` does nothing, since a loss calls it whatever --cuda says. Its first step saves
    pictures and models, into a temporary folder.
    """
    pictures = itertools.cycle(side.cpu() for side in job.pictures(0.0))  # it always reads A, then B
    theirs = {"g_ab": "generator_B", "g_ba": "generator_A", "d_a": "discriminator_A", "d_b": "discriminator_B"}
    seen: list[Parts] = []

    class Bar:
        def __init__(self, **_: Any) -> None:
            pass

        def start(self) -> None:
            pass

        def update(self, _: int) -> None:
            if not seen:
                names = sys._getframe(1).f_locals  # main()'s
                nets = {name: names[of] for name, of in theirs.items()}
                seen.append(Parts(nets, {"g": names["optim_gen"], "d": names["optim_dis"]}))
            before(seen[0])

    class BCELoss(nn.BCELoss):
        def forward(self, judged: Tensor, labels: Tensor) -> Tensor:
            return super().forward(judged, labels.view_as(judged))

    def files(test: bool, n_test: int) -> tuple[range, range]:
        return (range(NEVER), range(NEVER))

    dataset = _module("dataset", np=np, read_images=lambda *_: next(pictures), get_facescrub_files=files)
    dataset.shuffle_data = lambda *sides: sides  # type: ignore[attr-defined]
    bar = _module("progressbar", ProgressBar=Bar, Bar=_Nothing(), ETA=_Nothing(), Percentage=_Nothing())
    path = folder / "discogan" / "image_translation.py"
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(_at_home(path.parent, "ipdb", "scipy", instead={"dataset": dataset, "progressbar": bar}))
        stack.enter_context(mock.patch.object(nn, "BCELoss", BCELoss))
        if job.device.type == "cpu":
            stack.enter_context(mock.patch.object(Tensor, "cuda", lambda tensor, *_: tensor))
        script = _module("image_translation")
        source = re.sub(r"^(\s*)print (.+)$", r"\1print(\2)", path.read_text(), flags=re.MULTILINE)
        exec(compile(source, path, "exec"), script.__dict__)
        script.scipy = _Nothing()  # type: ignore[attr-defined]  # it saves pictures by scipy.misc, which is no more
        options = {
            "cuda": str(job.device.type == "cuda").lower(),
            "batch_size": job.config.batch,
            "image_size": job.config.size,
            "result_path": scratch,
            "model_path": scratch,
            "log_interval": NEVER,
            "image_save_interval": NEVER,
            "model_save_interval": NEVER,
        }
        stack.enter_context(_command_line(path.name, options))
        script.main()
    raise AssertionError("main() ended by itself")


@contextlib.contextmanager
def _at_home(folder: Path, *wanted: str, instead: Mapping[str, ModuleType] | None = None) -> Iterator[None]:
    """Imports find the folder's modules first, whatever else bears their names; afterwards nothing of it is left.

    wanted   modules that may be missing: then empty ones stand in
    instead  modules that are used in place of any others
    """
    own = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    own |= set(instead or {})
    stood_in: list[str] = []
    before, path, bytecode = dict(sys.modules), list(sys.path), sys.dont_write_bytecode
    for name in [name for name in sys.modules if name.partition(".")[0] in own]:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True  # a clone stays as it was
    try:
        stood_in += [name for name in wanted if not _importable(name)]
        sys.modules.update({name: _Empty(name) for name in stood_in} | dict(instead or {}))
        yield
    finally:
        sys.path[:], sys.dont_write_bytecode = path, bytecode
        for name in [name for name in sys.modules if name.partition(".")[0] in own or name in stood_in]:
            del sys.modules[name]
        sys.modules.update({name: module for name, module in before.items() if name not in sys.modules})


def _importable(name: str) -> bool:
    with warnings.catch_warnings(), contextlib.suppress(ImportError):
        warnings.simplefilter("ignore")
        importlib.import_module(name)
        return True
    return False


class _Nothing:
    """Can be called, and asked for anything; it is always this."""

    def __call__(self, *_: Any, **__: Any) -> _Nothing:
        return self

    def __getattr__(self, name: str) -> _Nothing:
        return self


class _Empty(ModuleType):
    def __getattr__(self, name: str) -> _Nothing:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Nothing()


def _module(name: str, **contents: Any) -> ModuleType:
    module = ModuleType(name)
    module.__dict__.update(contents)
    return module


@contextlib.contextmanager
def _command_line(script: str, options: Mapping[str, Any]) -> Iterator[None]:
    words = [script, *itertools.chain.from_iterable((f"--{name}", str(value)) for name, value in options.items())]
    with mock.patch.object(sys, "argv", words):
        yield


CODE_BASES = {
    "ugatit": CodeBase(
        "UGATIT-pytorch",
        "https://github.com/znxlwm/UGATIT-pytorch",
        {"UGATIT.py": "class UGATIT", "main.py": "def parse_args"},
        _ugatit,
    ),
    "cyclegan": CodeBase(
        "pytorch-CycleGAN-and-pix2pix",
        "https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix",
        {
            "options/train_options.py": "class TrainOptions",
            "options/base_options.py": "class BaseOptions",
            "models/__init__.py": "def create_model",
        },
        _cyclegan,
    ),
    "discogan": CodeBase(
        "DiscoGAN",
        "https://github.com/SKTBrain/DiscoGAN",
        {"discogan/image_translation.py": "ProgressBar", "discogan/model.py": "class Generator"},
        _discogan,
    ),
}
