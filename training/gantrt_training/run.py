"""The folder of a training: what is written while it goes on, and when."""

from __future__ import annotations

from pathlib import Path

from . import checkpoint
from .data import Data
from .journal import Journal
from .recipe import Recipe
from .samples import SampleSheet
from .step import Training


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
            self._sheet.save(training.shown, self.folder / "samples" / f"step_{training.done:07d}.png")
        if self._due(recipe.checkpoint_every):
            self.save()

    def save(self) -> Path:
        """A checkpoint of the step made last: the path of its weights. Raises NonFiniteLoss rather than keep NaN."""
        training, path = self.training, checkpoint.weights_path(self.folder, self.training.done)
        averages = training.averages
        training.losses.read()
        if self._saved != training.done:
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
            checkpoint.save_state(checkpoint.state_path(path), training.state())
            checkpoint.save_weights(path, about, training.nets, averages.nets if averages else None)
            checkpoint.prune(self.folder, self.recipe.keep)
            self._saved = training.done
        return path

    def close(self) -> None:
        self.journal.close()

    def _due(self, every: int) -> bool:
        return self.training.done == self.total or (every > 0 and self.training.done % every == 0)
