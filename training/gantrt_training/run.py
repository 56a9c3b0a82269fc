"""The folder of a training: what is written while it goes on, and when."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from . import checkpoint
from .data import Data
from .journal import Journal, refuse_non_finite
from .recipe import Recipe
from .samples import SampleSheet
from .step import Training


class Run:
    """The folder of a training: recipe.json, log.jsonl, tensorboard/, samples/, checkpoints/.

    Of several processes only the first writes; all call the same methods at the same steps.
    """

    def __init__(self, folder: Path, recipe: Recipe, training: Training, data: Data, total: int) -> None:
        self.folder, self.recipe, self.training, self.total = folder, recipe, training, total
        self._about = data.summary()
        self._saved = -1
        self.journal: Journal | None = None
        if training.world.is_first:
            self._sheet = SampleSheet(
                training.family, recipe.config, data, recipe.samples, training.fabric.device, training.norm_mode
            )
            recipe.save(folder / "recipe.json")
            self.journal = Journal(folder, training.family, training.losses, training.done)

    def after_step(self) -> None:
        """Write what is due after a step."""
        training, recipe = self.training, self.recipe
        if self._due(recipe.log_every):
            if self.journal is None:
                training.losses.take()
            else:
                pictures = recipe.config.batch * recipe.accumulate * training.world.size
                self.journal.write(training.done, training.epoch, pictures, training.lr())
        if recipe.sample_every and self._due(recipe.sample_every) and training.world.is_first:
            self._sheet.save(training.shown, self.folder / "samples" / f"step_{training.done:07d}.png")
        if self._due(recipe.checkpoint_every):
            self.save()

    def save(self) -> Path:
        """A checkpoint of the step made last: the path of its weights. Raises NonFiniteLoss rather than keep NaN."""
        training, path = self.training, checkpoint.weights_path(self.folder, self.training.done)
        training.losses.check()
        if self._saved != training.done:
            refuse_non_finite(training.nets, training.done)
            state = training.state()
            training.world.first(lambda: self._write(path, state))
            self._saved = training.done
        return path

    def _write(self, path: Path, state: dict[str, object]) -> None:
        training, averages = self.training, self.training.averages
        about = checkpoint.describe(
            training.family,
            self.recipe.preset,
            training.config,
            training.nets,
            step=training.done,
            epoch=training.epoch,
            averaged=averages.decay if averages else 0.0,
            data=self._about,
        )
        about = dataclasses.replace(about, norm_mode=training.norm_mode)
        checkpoint.save_state(checkpoint.state_path(path), state)
        checkpoint.save_weights(path, about, training.nets, averages.nets if averages else None)
        checkpoint.prune(self.folder, self.recipe.keep)

    def rewind(self) -> None:
        """Forget what was written after the training's step: it was brought back there."""
        if self.journal is not None:
            self.journal.rewind(self.training.done)
        self._saved = self.training.done

    def close(self) -> None:
        if self.journal is not None:
            self.journal.close()

    def _due(self, every: int) -> bool:
        return self.training.done == self.total or (every > 0 and self.training.done % every == 0)
