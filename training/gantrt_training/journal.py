"""What a training writes down: its losses, for the progress bar, for log.jsonl and for TensorBoard."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from gantrt.atomic import atomic_path
from gantrt.errors import GantrtError, UsageError
from torch import Tensor, nn

from .family import Family


class NonFiniteLoss(GantrtError):
    """A loss became NaN or infinite. What was saved before is sound."""


def refuse_non_finite(nets: nn.ModuleDict, step: int) -> None:
    """Raises NonFiniteLoss if a weight is NaN or infinite: a gradient can overflow while the loss does not."""
    for name, value in nets.named_parameters():
        if not bool(torch.isfinite(value).all()):
            raise NonFiniteLoss(
                f"train: {name} has values that are not finite after step {step}; resume from the last checkpoint with "
                "a lower lr, or set clip_grad=1"
            )


class Losses:
    """The losses of the steps since the last `take`. They stay on the device until someone wants to read them."""

    def __init__(self) -> None:
        self.latest: dict[str, float] = {}  # as of the last `read`
        self._kept: list[tuple[int, str, tuple[str, ...], Tensor]] = []
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._fault = ""  # what is not finite

    def add(self, step: int, phase: str, names: tuple[str, ...], values: Tensor) -> None:
        """Keep the terms of a phase. values  (len(names),) detached, on the device; nothing waits for it."""
        self._kept.append((step, phase, names, values))

    def read(self) -> None:
        """Fetch what was kept, for `latest`, `check` and `take`."""
        kept, self._kept = self._kept, []
        if not kept:
            return
        numbers = iter(torch.cat([values for _, _, _, values in kept]).tolist())  # one transfer for all steps
        for step, phase, names, _ in kept:
            terms = {name: next(numbers) for name in names}
            for name, value in terms.items():
                if not math.isfinite(value) and not self._fault:
                    self._fault = (
                        f"train: {name} is {value} at step {step}; resume from the last checkpoint with a lower lr, "
                        "or set on_nan=rollback"
                    )
            for name, value in (terms | {f"{phase}_loss": sum(terms.values())}).items():
                self.latest[name] = value
                self._sums[name] = self._sums.get(name, 0.0) + value
                self._counts[name] = self._counts.get(name, 0) + 1

    def check(self) -> None:
        """Raises NonFiniteLoss, which names the first step and term that is not finite."""
        self.read()
        if self._fault:
            raise NonFiniteLoss(self._fault)

    def forget(self) -> None:
        """Drop what was kept and summed: the steps it came from are to be made again."""
        self.latest, self._kept, self._sums, self._counts, self._fault = {}, [], {}, {}, ""

    def take(self) -> dict[str, float]:
        """The mean of each term, and of each phase's total, since the last `take`. Raises as `check`."""
        self.check()
        means = {name: total / self._counts[name] for name, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        return means


class Journal:
    """RUN/log.jsonl, a line each time, and RUN/tensorboard. What an interrupted run wrote after `start` goes."""

    def __init__(self, run: Path, family: Family, losses: Losses, start: int) -> None:
        self._family, self._losses, self._run = family, losses, run
        self._rate = 0.0
        self._open(start)

    def _open(self, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        path = self._run / "log.jsonl"
        _forget_after(path, start)
        self._file = path.open("a", encoding="utf-8")
        try:
            self._writer = SummaryWriter(str(self._run / "tensorboard"), purge_step=start + 1 if start else None)
        except UnicodeEncodeError as error:
            raise UsageError(f"train: {self._run}: TensorBoard takes Unicode only; give -o another name") from error
        self._time, self._step = time.monotonic(), start

    def rewind(self, step: int) -> None:
        """Forget what was written after `step`: the training goes on from there."""
        self.close()
        self._open(step)

    def write(self, step: int, epoch: int, batch: int, lr: dict[str, float]) -> None:
        """One line about the steps since the last one. `lr` is by phase; `batch` counts the pictures of one side."""
        now = time.monotonic()
        self._rate = (step - self._step) * batch / max(now - self._time, 1e-9)
        self._time, self._step = now, step
        means = self._losses.take()
        extra = self._family.scalars({name: torch.tensor(value) for name, value in means.items()})
        losses = means | {name: float(value) for name, value in extra.items()}
        line = {"step": step, "epoch": epoch, "images_per_s": round(self._rate, 2)}
        line |= {f"lr_{name}": value for name, value in lr.items()}
        line |= {name: round(value, 6) for name, value in losses.items()}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        for name, value in line.items():
            if name != "step":
                self._writer.add_scalar(name, value, step)

    def note(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """One line of other values than losses. What is not finite is left out: JSON has no such number."""
        finite = {name: round(value, 6) for name, value in values.items() if math.isfinite(value)}
        self._file.write(json.dumps({"step": step, "epoch": epoch, **finite}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """What is done within this does not count as training time."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self._time += time.monotonic() - begin

    def fields(self) -> dict[str, float | str]:
        """For a progress bar: the newest total of each phase, and pictures per second as of the last line.

        Raises nothing: of several processes only the first shows a bar, and all must stop at the same step.
        """
        self._losses.read()
        totals = {name: value for name, value in self._losses.latest.items() if name.endswith("_loss")}
        return totals | ({"images/s": f"{self._rate:.1f}"} if self._rate else {})

    def close(self) -> None:
        self._file.close()
        self._writer.close()


def _forget_after(path: Path, start: int) -> None:
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        with atomic_path(path) as temporary:  # a training killed just now would lose its history else
            temporary.write_text("".join(line for line in lines if _step_of(line) <= start), encoding="utf-8")


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf  # cut off in the middle
