"""A translator takes a test: it translates the test pictures of a data set, and metrics grade what it made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from gantrt.errors import DeviceUnavailable, UnsupportedInput
from gantrt.progress import Progress

from .data import Preparation, Side, Source
from .metrics.grader import Grader, Grades
from .pictures import Picture
from .sources import find_test

Translate = Callable[[list[Picture]], list[Picture]]

_AT_ONCE = 8  # pictures that are translated and graded together


@dataclass(frozen=True)
class TestSplit:
    """The test pictures of a data set: A and B, in order."""

    __test__ = False  # pytest: this is no test

    a: list[Source]
    b: list[Source]
    name: str  # test, or else val
    paired: bool  # whether row n of A and row n of B show the same thing

    def sides(self, direction: str) -> tuple[list[Source], list[Source]]:
        """What is given and what is wanted."""
        return (self.a, self.b) if direction == "a2b" else (self.b, self.a)


def find_test_split(root: Path, *, paired: bool | None, family_paired: bool, swap: bool = False) -> TestSplit:
    """The pictures in testA and testB, or side by side in test, or those of lists; without these, of val.

    paired  whether partners in the two folders share their names; None: if the family learns from pairs. Side-by-side
            pictures are pairs unless this is False.
    Raises UnsupportedInput, which says what was expected, if there are none or if pairs are not complete.
    """
    test = find_test(root)
    if test is None:
        there = "does not exist" if not root.exists() else "has no test pictures"
        raise UnsupportedInput(
            f"evaluate: {root} {there}; expected testA/ and testB/, or test/ with pictures that show A left and B "
            "right (or valA/, valB/, val/)"
        )
    found, name = test
    always = found.layout not in ("folders", "lists")
    together = paired if paired is not None else always or family_paired
    a, b = (found.a, found.b) if found.matched or not together else _matched(found.a, found.b)
    return TestSplit(*((b, a) if swap else (a, b)), name, together)


def evaluate(
    translate: Translate,
    given: Side,
    wanted: Side,
    grader: Grader,
    *,
    paired: bool,
    keep: bool = True,
    bar: Progress | None = None,
) -> Grades:
    """Grade the translations of all pictures of `given`.

    translate  prepared pictures, (h, w, c) uint8, to their translations
    keep       remember the features of translations in the grader's cache, not only those of real pictures
    """
    tally = grader.tally()
    for start in range(0, len(given), _AT_ONCE):
        made = translate([given.whole(n) for n in range(start, min(start + _AT_ONCE, len(given)))])
        tally.add_made(made, keep=keep)
        if paired:
            tally.compare(made, [wanted.whole(n) for n in range(start, start + len(made))])
        if bar:
            bar.update(len(made))
    for start in range(0, len(wanted), _AT_ONCE):
        real = [wanted.whole(n) for n in range(start, min(start + _AT_ONCE, len(wanted)))]
        tally.add_wanted(real)
        if bar:
            bar.update(len(real))
    return tally.grades()


def torch_device(asked: str) -> torch.device:
    """Where the metrics run beside an engine on `asked`: auto, cpu, cuda or cuda:N. Raises DeviceUnavailable."""
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if asked.startswith("cuda") and not torch.cuda.is_available():
        raise DeviceUnavailable("evaluate: this PyTorch finds no CUDA device for the metrics; give --device cpu")
    return torch.device(asked)


def make_side(sources: Sequence[Source], channels: int, preparation: Preparation, count: int | None = None) -> Side:
    """These pictures, or `count` of them, evenly chosen: of equally many the same rows."""
    chosen = np.linspace(0, len(sources) - 1, min(count or len(sources), len(sources))).round().astype(int).tolist()
    return Side([sources[n] for n in chosen], channels, preparation, cache_bytes=0)  # each is read once or twice


def _matched(a: list[Source], b: list[Source]) -> tuple[list[Source], list[Source]]:
    first, second = ({source.name: source for source in side} for side in (a, b))
    alone = sorted(first.keys() ^ second.keys())
    if alone:
        only = first.get(alone[0]) or second[alone[0]]
        raise UnsupportedInput(
            f"evaluate: {len(alone)} test pictures have no partner of the same name on the other side, the first is "
            f"{only.path}; complete the pairs, or give --no-paired"
        )
    names = sorted(first)
    return [first[name] for name in names], [second[name] for name in names]
