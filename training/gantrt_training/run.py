"""The folder of a training: what is written while it goes on, and when."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from . import checkpoint
from .checkpoint import Score
from .data import Data
from .journal import Journal, refuse_non_finite
from .recipe import Recipe
from .samples import SampleSheet
from .step import Training
from .validation import Validation


class Run:
    """The folder of a training: recipe.json, log.jsonl, tensorboard/, samples/, checkpoints/.

    Of several processes only the first writes; all call the same methods at the same steps.
    """

    def __init__(self, folder: Path, recipe: Recipe, training: Training, data: Data, total: int) -> None:
        self.folder, self.recipe, self.training, self.total = folder, recipe, training, total
        self._about = data.summary()
        self._saved = -1
        self.journal: Journal | None = None
        self._validation: Validation | None = None
        self.last_score: Score | None = None  # of the networks graded last
        if recipe.evaluate_every:
            training.world.first(lambda: self._open_validation(data))
        if training.world.is_first:
            self._sheet = SampleSheet(
                training.family, recipe.config, data, recipe.samples, training.fabric.device, training.norm_mode
            )
            recipe.save(folder / "recipe.json")
            checkpoint.forget_best_after(folder, training.done)
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
        if recipe.evaluate_every and self._due(recipe.evaluate_every):
            self._validate()
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

    def _validate(self) -> None:
        """Grade the networks. If no earlier ones were better, save them, and they stay."""
        score = self.training.world.first(self._better_score)
        if score is not None:
            self.save()
            self.training.world.first(lambda: checkpoint.mark_best(self.folder, score))

    def _better_score(self) -> Score | None:
        """That of the networks as they are, if no earlier ones were better."""
        training, journal, validation = self.training, self.journal, self._validation
        if journal is None or validation is None:
            raise ValueError("only the first process grades")
        with journal.aside():
            values = validation.grade(training.shown)
            journal.note(training.done, training.epoch, values)
        self.last_score = validation.score(training.done, values)
        return self.last_score if self.last_score.beats(checkpoint.best(self.folder)) else None

    def _open_validation(self, data: Data) -> None:
        training = self.training
        self._validation = Validation(self.recipe, training.family, data, training.fabric.device, training.norm_mode)

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
            checkpoint.forget_best_after(self.folder, self.training.done)
        self._saved = self.training.done

    def close(self) -> None:
        if self.journal is not None:
            self.journal.close()

    def _due(self, every: int) -> bool:
        return self.training.done == self.total or (every > 0 and self.training.done % every == 0)
