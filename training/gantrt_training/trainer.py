"""The training loop. `Training.step` is one step of any family; `train` runs a recipe from its start to its end."""

from __future__ import annotations

import logging
import os
import random
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gantrt.errors import DeviceUnavailable, EngineCorrupt, UnsupportedInput, UsageError
from gantrt.progress import Progress
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from . import checkpoint
from .data import Batches, Data, to_float
from .family import Family
from .journal import Journal, Losses
from .recipe import Recipe
from .samples import SampleSheet

log = logging.getLogger("gantrt")
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # we say ourselves what is trained where

_PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
_CONTENTS = ("recipe.json", "log.jsonl", "tensorboard", "samples", checkpoint.FOLDER)  # of a RUN folder


class Training:
    """A family that learns: its networks, the optimisers that move them, and how far it is."""

    def __init__(self, family: Family, config: Any, steps_per_epoch: int, fabric: Fabric) -> None:
        self.family, self.config, self.fabric, self.steps_per_epoch = family, config, fabric, steps_per_epoch
        self.done = 0  # steps
        self.losses = Losses()
        self.nets = family.build(config).to(fabric.device).train()
        self.pools = family.pools(config)
        self.phases = family.phases(config, self.pools)
        self.optimizers = {name: _ready(o, fabric) for name, o in family.optimizers(self.nets, config).items()}
        self._others = [_parameters(self.nets, set(self.nets) - set(phase.trains)) for phase in self.phases]
        self._generators = set(family.generators.values())

    def step(self, a: Tensor, b: Tensor) -> None:
        """One training step on a batch, (n, c, h, w) in [-1, 1] on the device.

        The generators run once for all phases. A phase computes its terms right before its backward pass, so it sees
        what earlier phases of the step have made of the networks. What it does not train is frozen meanwhile: no
        gradient is computed that nobody would use.
        """
        batch = {"a": a, "b": b}
        due = [(phase, others) for phase, others in zip(self.phases, self._others, strict=True) if phase.due(self.done)]
        self._set_lr()
        learns = any(not self._generators.isdisjoint(phase.trains) for phase, _ in due)
        with torch.set_grad_enabled(learns), self.fabric.autocast():
            made = self.family.forward(self.nets, batch, self.config)
        for phase, others in due:
            optimizer = self.optimizers[phase.name]
            with _frozen(others):
                with self.fabric.autocast():
                    terms = phase.terms(self.nets, batch, made)
                    values = torch.stack([term.float() for term in terms.values()])
                optimizer.zero_grad()
                self.fabric.backward(values.sum())
            optimizer.step()
            phase.after(self.nets)
            self.losses.add(self.done, phase.name, tuple(terms), values.detach())
        self.done += 1

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return self.done // self.steps_per_epoch

    def lr(self) -> dict[str, float]:
        """The learning rate of the last step, by phase."""
        return {name: float(optimizer.param_groups[0]["lr"]) for name, optimizer in self.optimizers.items()}

    def state(self) -> dict[str, Any]:
        """All that is not a weight and that the next step depends on."""
        return {
            "step": self.done,
            "optimizers": {name: optimizer.state_dict()["state"] for name, optimizer in self.optimizers.items()},
            "pools": {name: pool.state_dict() for name, pool in self.pools.items()},
            "precision": self.fabric.strategy.precision.state_dict(),
            "random": _random_state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave. Learning rates and the like stay those of the config."""
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(optimizer.state_dict() | {"state": state["optimizers"][name]})
        for name, pool in self.pools.items():
            pool.load_state_dict(state["pools"][name])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        _set_random_state(state["random"])
        self.done = int(state["step"])

    def _set_lr(self) -> None:
        factor = self.family.lr_factor(self.config, self.done, self.steps_per_epoch)
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor


class Run:
    """The folder of a training: recipe.json, log.jsonl, tensorboard/, samples/, checkpoints/."""

    def __init__(self, folder: Path, recipe: Recipe, training: Training, data: Data, total: int) -> None:
        self.folder, self.recipe, self.training, self.total = folder, recipe, training, total
        self._about = data.summary()
        self._saved = -1
        self._sheet = SampleSheet(training.family, recipe.config, data, recipe.samples, training.fabric.device)
        recipe.save(folder / "recipe.json")
        self.journal = Journal(folder, training.family, training.losses, training.done)

    def after_step(self) -> None:
        """Write what is due after a step."""
        training, recipe = self.training, self.recipe
        if self._due(recipe.log_every):
            self.journal.write(training.done, training.epoch, recipe.config.batch, training.lr())
        if recipe.sample_every and self._due(recipe.sample_every):
            self._sheet.save(training.nets, self.folder / "samples" / f"step_{training.done:07d}.png")
        if self._due(recipe.checkpoint_every):
            self.save()

    def save(self) -> Path:
        """A checkpoint of the step made last: the path of its weights. Raises NonFiniteLoss rather than keep NaN."""
        training, path = self.training, checkpoint.weights_path(self.folder, self.training.done)
        training.losses.read()
        if self._saved != training.done:
            about = checkpoint.describe(
                training.family,
                self.recipe.preset,
                training.config,
                training.nets,
                step=training.done,
                epoch=training.epoch,
                data=self._about,
            )
            checkpoint.save_state(checkpoint.state_path(path), training.state())
            checkpoint.save_weights(path, about, training.nets)
            checkpoint.prune(self.folder, self.recipe.keep)
            self._saved = training.done
        return path

    def close(self) -> None:
        self.journal.close()

    def _due(self, every: int) -> bool:
        return self.training.done == self.total or (every > 0 and self.training.done % every == 0)


def train(
    recipe: Recipe, folder: str | Path, *, resume: bool = False, overwrite: bool = False, progress: bool = True
) -> Path:
    """Train as `recipe` says, write into `folder`, and return the path of the last weights.

    resume     go on from the newest checkpoint in `folder`, as if there had been no interruption
    overwrite  replace what an earlier training left there
    Ctrl-C and SIGTERM save a checkpoint when the running step is made, then raise KeyboardInterrupt.
    """
    folder, family, config = Path(folder), recipe.load_family(), recipe.config
    check_size(family, config)
    fabric = open_fabric(recipe.device, recipe.precision)
    channels = (config.channels_a, config.channels_b)
    data = Data(Path(recipe.data), channels, recipe.preparation(), paired=family.paired, swap=recipe.swap)
    batches = Batches(data, config.batch, recipe.seed, recipe.pictures_per_epoch())
    enter(folder, resume=resume, overwrite=overwrite)

    seed_everything(recipe.seed)
    training = Training(family, config, batches.steps_per_epoch, fabric)
    if resume:
        restore(training, folder)
    start, total = training.done, recipe.steps or family.total_steps(config, batches.steps_per_epoch)
    log.info("%s: %s; step %d of %d on %s", recipe.family, data, start, total, fabric.device)

    with (
        closing(Run(folder, recipe, training, data, total)) as run,
        Progress(total, "steps", label=recipe.family, enabled=progress, start=start) as bar,
        closing(batches.iterate(start, _threads(recipe, fabric.device))) as stream,
        _interruptions() as interrupted,
    ):
        while training.done < total and not interrupted.is_set():
            try:
                a, b = next(stream)
            except UnsupportedInput:
                run.save()
                raise
            training.step(upload(a, fabric.device), upload(b, fabric.device))
            bar.update(1, **(run.journal.fields() if bar.due() else {}))
            run.after_step()
        last = run.save()
    if interrupted.is_set():
        log.warning("train: saved step %d of %d; --resume goes on from there", training.done, total)
        raise KeyboardInterrupt
    return last


def restore(training: Training, folder: Path) -> None:
    """Bring a fresh `training` to the newest checkpoint in `folder`; without any it stays at its start.

    Raises EngineCorrupt if the checkpoint is damaged or holds other networks.
    """
    path = checkpoint.newest_resumable(folder)
    if path is None:
        log.info("train: %s has no checkpoint yet, training starts at step 0", folder)
        return
    description = checkpoint.read_description(path)
    if set(description.networks) != set(training.nets):
        raise EngineCorrupt(f"{path}: holds {', '.join(description.networks)}, not what {training.family.name} trains")
    checkpoint.load_weights(path, description, training.nets)
    try:
        training.load_state(checkpoint.load_state(checkpoint.state_path(path), training.fabric.device))
    except (KeyError, ValueError, TypeError) as error:
        raise EngineCorrupt(f"{checkpoint.state_path(path)}: does not fit this training ({error})") from error


def enter(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Make `folder` ready for a training. UsageError if one lies there, unless it is to be resumed or replaced."""
    is_run = (folder / "recipe.json").is_file()
    if resume and overwrite:
        raise UsageError("train: --resume and --overwrite exclude each other")
    if resume and not is_run:
        raise UsageError(f"train: {folder} holds no training to resume")
    if folder.is_dir() and any(folder.iterdir()) and not resume:
        if not is_run:
            raise UsageError(f"train: {folder} is not empty and holds no training; choose another folder")
        if not overwrite:
            raise UsageError(f"train: {folder} holds a training; give --resume to go on, or --overwrite to replace it")
        for name in _CONTENTS:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"train: {folder} cannot be made ({error.strerror or error})") from error


def open_fabric(device: str, precision: str) -> Fabric:
    """The device and precision to train with; "auto" takes a GPU where there is one.

    Raises UsageError for words that mean no device, DeviceUnavailable for a device that is not here.
    """
    kind, _, index = device.partition(":")
    if device == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind not in ("cpu", "cuda") or (index and (kind == "cpu" or not index.isdigit())):
        raise UsageError(f"train: there is no device {device!r}; there are auto, cpu, cuda and cuda:N")
    if kind == "cuda" and not torch.cuda.is_available():
        raise DeviceUnavailable("train: this PyTorch finds no CUDA device; give --device cpu, or see `gantrt doctor`")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise DeviceUnavailable(f"train: there is no {device}; CUDA devices here: {torch.cuda.device_count()}")
    if kind == "cpu" and precision == "fp16":
        raise UsageError("train: fp16 needs a GPU; use bf16 or fp32 on a CPU")
    if kind == "cpu" and precision == "bf16":
        log.warning("train: bf16 on a CPU is often slower than fp32: most have no fast bf16 convolutions for training")
    if kind == "cuda":
        torch.backends.cudnn.benchmark = True  # batches have one shape
        torch.set_float32_matmul_precision("high")  # TF32, as convolutions have it by default
    fabric = Fabric(
        accelerator=kind,
        devices=1 if kind == "cpu" else [int(index or 0)],
        precision=_PRECISIONS[precision],
    )
    fabric.launch()
    return fabric


def check_size(family: Family, config: Any) -> None:
    """UsageError if the family's networks cannot take the config's crop, or its pictures are neither grey nor RGB."""
    rule = family.size_rule(config)
    if config.size % rule.multiple or config.size < 1:
        raise UsageError(f"{family.name}: size {config.size} must be a multiple of {rule.multiple}")
    if rule.fixed and rule.fixed != (config.size, config.size):
        raise UsageError(f"{family.name}: size {config.size} must be {rule.fixed[0]}, for which its networks are made")
    if config.batch < 1:
        raise UsageError(f"{family.name}: batch {config.batch} must be at least 1")
    for key in ("channels_a", "channels_b"):
        if getattr(config, key) not in (1, 3):
            raise UsageError(f"{family.name}: {key} must be 1 (grey) or 3 (RGB), got {getattr(config, key)}")


def upload(pictures: Tensor, device: torch.device) -> Tensor:
    """(n, h, w, c) uint8 on the CPU → (n, c, h, w) float in [-1, 1] on the device; does not wait for it."""
    if device.type == "cuda":
        pictures = pictures.pin_memory().to(device, non_blocking=True)
    return to_float(pictures)


def seed_everything(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  a family may draw from the global generators
    random.seed(seed)


def _ready(optimizer: Optimizer, fabric: Fabric) -> Any:
    """The optimiser as the loop uses it: it knows its base rate, and Adam moves all weights in one call."""
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
        if type(optimizer) is torch.optim.Adam and not group["foreach"]:
            group["fused"] = True
    return fabric.setup_optimizers(optimizer)


def _parameters(nets: nn.ModuleDict, names: set[str]) -> list[nn.Parameter]:
    return [p for name, net in nets.items() if name in names for p in net.parameters() if p.requires_grad]


def _threads(recipe: Recipe, device: torch.device) -> int:
    if recipe.workers is not None:
        return recipe.workers
    return min(8, os.cpu_count() or 1) if device.type == "cuda" else 0  # a CPU that trains has no core to spare


@contextmanager
def _frozen(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    for parameter in parameters:
        parameter.requires_grad = False
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad = True


@contextmanager
def _interruptions() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets; a second one interrupts at once, as ever."""
    asked = threading.Event()
    before: dict[signal.Signals, Any] = {}

    def ask(number: int, frame: Any) -> None:
        asked.set()
        for signal_, handler in before.items():
            signal.signal(signal_, handler)

    if threading.current_thread() is threading.main_thread():  # elsewhere signals are none of our business
        before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for signal_, handler in before.items():
            signal.signal(signal_, handler)


def _random_state() -> dict[str, Any]:
    """The global generators' states, as tensors and numbers."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [str(kind), torch.from_numpy(np.asarray(keys, np.int64)), int(position), int(has_gauss), float(gauss)],
        "python": random.getstate(),
    }


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"].cpu())
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([one.cpu() for one in state["cuda"]])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), *rest))  # noqa: NPY002
    random.setstate(state["python"])
