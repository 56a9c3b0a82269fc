"""The training loop: `train` runs a recipe from its start to its end."""

from __future__ import annotations

import logging
import os
import shutil
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any

import torch
from gantrt.errors import EngineCorrupt, GantrtError, UnsupportedInput, UsageError
from gantrt.progress import Progress
from gantrt.run_page import NAME as PAGE
from gantrt.run_page import write_page
from lightning_fabric import Fabric
from torch import nn

from . import checkpoint
from .data import Batches, Data
from .devices import open_fabric
from .distributed import World
from .family import Family
from .interruption import interruptions
from .journal import NonFiniteLoss
from .penalties import Penalties
from .randomness import seed_everything, seed_of_process
from .recipe import Recipe
from .run import Run
from .sizes import HeightWidth, height_width
from .stability import Guard
from .step import Training, upload

log = logging.getLogger("gantrt")

_CONTENTS = ("recipe.json", "log.jsonl", "tensorboard", "samples", PAGE, checkpoint.FOLDER)  # of a RUN folder


def train(
    recipe: Recipe, folder: str | Path, *, resume: bool = False, overwrite: bool = False, progress: bool = True
) -> Path:
    """Train as `recipe` says, write into `folder`, and return the path of the last weights.

    resume     go on from the newest checkpoint in `folder`, as if there had been no interruption
    overwrite  replace what an earlier training left there
    Ctrl-C and SIGTERM save a checkpoint when the running step is made, then raise KeyboardInterrupt.
    Started by torchrun, all processes call this; they train as one and the first of them writes.
    """
    folder, family, config = Path(folder), recipe.load_family(), recipe.config
    check_size(family, config)
    fabric = open_fabric(recipe.device, recipe.precision)
    world = World(fabric)
    _only_errors_from_others(world)
    channels = (config.channels_a, config.channels_b)
    data = Data(
        Path(recipe.data),
        channels,
        recipe.preparation(),
        paired=family.paired,
        swap=recipe.swap,
        max_unreadable=recipe.max_unreadable,
    )
    share = (world.rank, world.size)
    batches = Batches(data, config.batch * recipe.accumulate, recipe.seed, recipe.pictures_per_epoch(), share)
    world.first(lambda: enter(folder, resume=resume, overwrite=overwrite))

    seed_everything(recipe.seed)
    training = Training(
        family,
        config,
        batches.steps_per_epoch,
        fabric,
        accumulate=recipe.accumulate,
        clip_grad=recipe.clip_grad,
        ema=recipe.ema,
        penalties=Penalties(recipe.r1, recipe.gp),
        sync_batchnorm=recipe.sync_batchnorm,
        channels_last=recipe.channels_last,
        compile=recipe.compile,
        cuda_graph=recipe.cuda_graph,
    )
    if world.rank:
        seed_everything(seed_of_process(recipe.seed, world.rank))
    if resume:
        restore(training, folder)
    start, total = training.done, recipe.steps or family.total_steps(config, batches.steps_per_epoch)
    log.info("%s: %s; step %d of %d on %s", recipe.family, data, start, total, _where(fabric, world))

    failure = None
    with (
        closing(Run(folder, recipe, training, data, total)) as run,
        Progress(total, "steps", label=recipe.family, enabled=progress and world.is_first, start=start) as bar,
        interruptions() as interrupted,
    ):
        guard, last = Guard(recipe, run, batches, restore), None
        while last is None:
            try:
                failure = _go_on(run, batches, bar, interrupted)
                last = run.save()
            except NonFiniteLoss as error:
                guard.answer(error)
                bar.update(training.done - bar.done)
    if world.is_first:
        _conclude(run)
    failed = world.any(failure is not None)
    world.leave()
    if failure is not None:
        raise failure
    if failed:
        raise GantrtError(f"train: another process could not go on and says why; saved step {training.done}")
    if training.done < total:
        log.warning("train: saved step %d of %d; --resume goes on from there", training.done, total)
        raise KeyboardInterrupt
    return last


def _go_on(run: Run, batches: Batches, bar: Progress, interrupted: Event) -> UnsupportedInput | None:
    """Step by step to the end, or to an interruption, or to pictures that cannot be used: why."""
    training, failure = run.training, None
    device = training.fabric.device
    with closing(batches.iterate(training.done, _threads(run.recipe, device))) as stream:
        while training.done < run.total:
            try:
                a, b = next(stream)
            except UnsupportedInput as error:
                failure = error
            if training.world.any(interrupted.is_set() or failure is not None):
                break
            training.step(upload(a, device), upload(b, device))
            bar.update(1, **(run.journal.fields() if run.journal and bar.due() else {}))
            run.after_step()
    return failure


def _conclude(run: Run) -> None:
    """Leave the page of the training, and say which checkpoint the metrics liked best and what they say of the last."""
    try:
        write_page(run.folder)
    except GantrtError as error:
        log.warning("train: %s; `gantrt inspect RUN --html` makes the page", error)
    liked, last = checkpoint.best(run.folder), run.last_score
    if liked is not None and last is not None:
        path = checkpoint.weights_path(run.folder, liked.step)
        log.info("best: %s %.4g at step %d, %s", liked.metric, liked.value, liked.step, path)
        log.info("last: %s %.4g at step %d", last.metric, last.value, last.step)


def restore(training: Training, folder: Path) -> None:
    """Bring a fresh `training` to the newest checkpoint in `folder`; without any it stays at its start.

    Raises EngineCorrupt if the checkpoint is damaged or holds other networks, UsageError if other than as many
    processes made it.
    """
    path = checkpoint.newest_resumable(folder)
    if path is None:
        log.info("train: %s has no checkpoint yet, training starts at step 0", folder)
        return
    description = checkpoint.read_description(path)
    if set(description.networks) != set(training.nets):
        raise EngineCorrupt(f"{path}: holds {', '.join(description.networks)}, not what {training.family.name} trains")
    averages = training.averages.nets if training.averages else nn.ModuleDict()
    checkpoint.load_weights(path, description, training.nets, averages)
    try:
        training.load_state(checkpoint.load_state(checkpoint.state_path(path), training.fabric.device))
    except UsageError:
        raise
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


def check_size(family: Family, config: Any) -> None:
    """UsageError if the family's networks cannot take the config's crop, or its pictures have no channels."""
    rule, size = family.size_rule(config), height_width(config.size)
    if min(size) < 1 or any(side % rule.multiple for side in size):
        raise UsageError(f"{family.name}: size {config.size} must be a multiple of {rule.multiple}")
    if rule.fixed and rule.fixed != size:
        fixed = HeightWidth(*rule.fixed)
        raise UsageError(f"{family.name}: size {config.size} must be {fixed}, for which its networks are made")
    if config.batch < 1:
        raise UsageError(f"{family.name}: batch {config.batch} must be at least 1")
    for key in ("channels_a", "channels_b"):
        if getattr(config, key) < 1:
            raise UsageError(f"{family.name}: {key} must be at least 1, got {getattr(config, key)}")


def _only_errors_from_others(world: World) -> None:
    """What all processes would say alike, the first says."""
    if not world.is_first:
        log.setLevel(logging.ERROR)


def _where(fabric: Fabric, world: World) -> str:
    return str(fabric.device) if world.size == 1 else f"{world.size} processes, {fabric.device.type}"


def _threads(recipe: Recipe, device: torch.device) -> int:
    if recipe.workers is not None:
        return recipe.workers
    return min(8, os.cpu_count() or 1) if device.type == "cuda" else 0  # a CPU that trains has no core to spare
