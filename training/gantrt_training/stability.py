"""What a training does about values that are not finite: stop, or go back to the last checkpoint and on another way."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Protocol

from . import checkpoint
from .data import Batches
from .journal import NonFiniteLoss
from .recipe import Recipe
from .run import Run
from .step import Training

log = logging.getLogger("gantrt")


class Restore(Protocol):
    def __call__(self, training: Training, folder: Path) -> None: ...


class Guard:
    """Answers a loss that is not finite as `recipe.on_nan` says.

    A training that rolls back takes its pictures in another order from then on, so that it does not meet the same
    batch with the same weights again. How often it did so is part of its state: a resumed run goes on with that order,
    and with what is left of `max_rollbacks`.
    """

    def __init__(self, recipe: Recipe, run: Run, batches: Batches, restore: Restore) -> None:
        self._recipe, self._run, self._batches, self._restore = recipe, run, batches, restore
        batches.reorder(run.training.order)
        if recipe.on_nan == "rollback" and checkpoint.newest_resumable(run.folder) is None:
            run.save()

    def answer(self, error: NonFiniteLoss) -> None:
        """Bring the training back to its last checkpoint. Raises the error if it is not to be, or was too often."""
        recipe, training = self._recipe, self._run.training
        if recipe.on_nan == "stop":
            raise error
        order = training.order + 1
        if order > recipe.max_rollbacks:
            raise NonFiniteLoss(
                f"{error}; it was rolled back {training.order} times already (max_rollbacks): set clip_grad=1 or "
                "precision=fp32 as well"
            ) from error
        at = training.done
        training.losses.forget()
        self._restore(training, self._run.folder)
        training.order = order
        self._batches.reorder(order)
        self._run.rewind()
        log.warning(
            "train: %s; rolled back from step %d to %d, on with another order (%d of at most %d times)",
            str(error).partition(";")[0].removeprefix("train: "),
            at,
            training.done,
            order,
            recipe.max_rollbacks,
        )
