"""Pictures for training: those of A and of B, and which of them, cut how, make the batch of a step.

Where they may lie says sources.py, how they are scaled and cut preparation.py. What a step sees is a function of the
seed and the step alone, so a resumed training sees what an uninterrupted one would have seen, however many threads
decode.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from gantrt.errors import UnsupportedInput
from numpy.typing import NDArray
from torch import Tensor

from .pictures import Picture, halves, read_picture
from .preparation import Interpolation, Preparation, resize
from .sources import Found, Source, find, pair
from .unreadable import Unreadable

__all__ = ["Batches", "Data", "Interpolation", "Preparation", "Side", "Source", "resize", "to_float", "to_pictures"]

CACHE_BYTES = 1 << 30  # of decoded pictures, kept so that only the first epoch decodes

Cuts = NDArray[np.float64]  # (n, 4): which pictures of one side; how far down and right their cut lies; mirrored?


class Side:
    """The pictures of one domain, scaled and remembered as long as they fit into `cache_bytes`."""

    def __init__(
        self,
        sources: Sequence[Source],
        channels: int,
        preparation: Preparation,
        cache_bytes: int = CACHE_BYTES // 2,
        unreadable: Unreadable | None = None,
    ) -> None:
        self.sources, self.channels, self.preparation = list(sources), channels, preparation
        self.unreadable = unreadable or Unreadable()
        self._kept: dict[int, Picture] = {}
        self._room, self._lock = cache_bytes, threading.Lock()

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> Picture:
        """Picture `index`, (h, w, channels), as it waits to be cut. Raises UnsupportedInput, which names the file."""
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        path = self.sources[index].path
        picture = self._read(index)
        try:
            picture = self.preparation.load(picture)
        except UnsupportedInput as error:
            raise UnsupportedInput(f"{path}: {error}") from error
        with self._lock:
            if picture.nbytes <= self._room and index not in self._kept:
                self._room -= picture.nbytes
                self._kept[index] = np.ascontiguousarray(picture)
        return picture

    def readable(self, index: int) -> Picture:
        """Picture `index`, or the next one that can be used. Raises TooManyUnreadable beyond the limit."""
        return _next_readable((self,), index)[0]

    def whole(self, index: int) -> Picture:
        """Picture `index`, or the next one that can be used, (*size, channels), neither cut nor mirrored."""
        for at in _from(index, len(self)):
            if self.sources[at].path not in self.unreadable:
                try:
                    return self.preparation.whole(self._read(at))
                except UnsupportedInput as error:
                    self.unreadable.add(self.sources[at].path, error)
        raise _none_left(self)

    def _read(self, index: int) -> Picture:
        return _picture(self.sources[index], self.channels, self.preparation)


class Data:
    """The training and test pictures of one folder, or of lists."""

    def __init__(
        self,
        root: Path,
        channels: tuple[int, int],
        preparation: Preparation,
        *,
        paired: bool,
        swap: bool = False,
        max_unreadable: int = 0,
    ) -> None:
        """Find them. `swap` exchanges A and B; so many pictures that cannot be used are skipped.

        Raises UnsupportedInput, which says what was expected, if there are none or if pairs are not complete.
        """
        self.preparation, self.paired = preparation, paired
        self.unreadable = Unreadable(max_unreadable)
        train, test = find(root)
        self.layout, self.has_test = train.layout, test is not None
        (self.a, self.b), (self.test_a, self.test_b) = (
            self._sides(found, channels, swap) for found in (train, test or train)
        )

    def _sides(self, found: Found, channels: tuple[int, int], swap: bool) -> tuple[Side, Side]:
        found = pair(found) if self.paired else found
        a, b = (found.b, found.a) if swap else (found.a, found.b)
        return (
            Side(a, channels[0], self.preparation, unreadable=self.unreadable),
            Side(b, channels[1], self.preparation, unreadable=self.unreadable),
        )

    def pictures(self, a: int, b: int) -> tuple[Picture, Picture]:
        """Pictures `a` of A and `b` of B, or the next ones that can be used; of pairs (a = b) the next pair.

        Raises TooManyUnreadable beyond the limit, UnsupportedInput if a pair is to be cut alike but differs in size.
        """
        if not self.paired:
            return self.a.readable(a), self.b.readable(b)
        first, second = _next_readable((self.a, self.b), a)
        if first.shape[:2] != second.shape[:2]:
            raise UnsupportedInput(
                f"{self.a.sources[a].path}: its partner differs in size, {_by(first)} and {_by(second)}; "
                "set preprocess=resize_and_crop, or make pairs of one size"
            )
        return first, second

    def __str__(self) -> str:
        return f"{len(self.a)} pictures of A, {len(self.b)} of B ({self.layout})"

    def summary(self) -> dict[str, int | str]:
        tested = {"test_a": len(self.test_a), "test_b": len(self.test_b)} if self.has_test else {}
        return {"layout": self.layout, "a": len(self.a), "b": len(self.b), **tested}


class Batches:
    """The batches of a training: `load(step)` makes the one of a step, iterating from a step on makes all."""

    def __init__(
        self, data: Data, batch: int, seed: int, max_pictures: int = 0, share: tuple[int, int] = (0, 1)
    ) -> None:
        """max_pictures  of each side and epoch, drawn anew for each; 0: all
        share         (rank, processes): together they see, step by step, what one process would with a batch so much
                      larger; all make equally many steps, and pictures that fill no step of all are left out
        """
        self.data, self.batch, self.seed = data, batch, seed
        self.order = 0  # which of the orders that the seed gives; see `reorder`
        self._rank, processes = share
        self._together = batch * processes
        pictures = max(len(data.a), len(data.b))
        self.steps_per_epoch = max(1, min(pictures, max_pictures or pictures) // self._together)
        self._plans: dict[int, tuple[Cuts, Cuts]] = {}

    def load(self, step: int) -> tuple[Tensor, Tensor]:
        """A and B, each (batch, height, width, channels) uint8 or uint16 on the CPU."""
        epoch, at = divmod(step, self.steps_per_epoch)
        first = at * self._together + self._rank * self.batch
        rows = slice(first, first + self.batch)
        cut = self.data.preparation.cut
        all_a: list[Picture] = []
        all_b: list[Picture] = []
        for (i, *cut_a), (j, *cut_b) in zip(*(plan[rows].tolist() for plan in self._plan(epoch)), strict=True):
            a, b = self.data.pictures(int(i), int(j))
            all_a.append(cut(a, *cut_a))
            all_b.append(cut(b, *cut_b))
        return _stacked(all_a), _stacked(all_b)

    def iterate(self, start: int = 0, workers: int = 0) -> Generator[tuple[Tensor, Tensor], None, None]:
        """The batches from step `start` on, without end; `workers` threads decode ahead, 0: decoded when asked for."""
        if not workers:
            yield from map(self.load, itertools.count(start))
            return
        pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        try:
            ahead = deque(pool.submit(self.load, start + n) for n in range(2 * workers))
            for step in itertools.count(start + 2 * workers):
                yield ahead.popleft().result()
                ahead.append(pool.submit(self.load, step))
        finally:
            pool.shutdown(cancel_futures=True)

    def reorder(self, order: int) -> None:
        """From now on another of the seed's orders, 0 being the first: a training that rolled back goes on with it."""
        self.order, self._plans = order, {}

    def _plan(self, epoch: int) -> tuple[Cuts, Cuts]:
        """All batches of an epoch: A in shuffled order, B its partner, or drawn at random (Zhu et al. 2017's code)."""
        plan = self._plans.get(epoch)
        if plan is None:
            plan = self._draw(epoch)
            self._plans = {**dict(list(self._plans.items())[-1:]), epoch: plan}  # threads may be in two epochs
        return plan

    def _draw(self, epoch: int) -> tuple[Cuts, Cuts]:
        rng = np.random.default_rng((self.seed, epoch, self.order) if self.order else (self.seed, epoch))
        data, how = self.data, self.data.preparation
        count, pictures = self.steps_per_epoch * self._together, max(len(data.a), len(data.b))
        order = np.resize(rng.permutation(pictures), count)  # repeats a set that is smaller than one batch
        partner = order if data.paired else rng.integers(len(data.b), size=count)
        corner = rng.random((2, 2, count))
        mirrored = rng.random((2, count)) < (0.5 if how.flip else 0.0)
        other = 0 if data.paired else 1  # a pair is cut and mirrored alike
        return (
            np.column_stack([order % len(data.a), *corner[0], mirrored[0]]),
            np.column_stack([partner, *corner[other], mirrored[other]]),
        )


def to_float(pictures: Tensor) -> Tensor:
    """(n, h, w, c) uint8 or uint16 → (n, c, h, w) float32 in [-1, 1], on the same device."""
    half = 127.5 if pictures.dtype == torch.uint8 else 32767.5
    planes = pictures.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    return planes.div_(half).sub_(1.0)


def to_pictures(x: Tensor) -> Picture:
    """(n, c, h, w) float in [-1, 1] → (n, h, w, c) uint8 on the CPU."""
    levels = (x.detach().float() + 1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
    return levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def _stacked(pictures: list[Picture]) -> Tensor:
    sizes = {picture.shape[:2] for picture in pictures}
    if len(sizes) > 1:
        raise UnsupportedInput(
            f"train: a batch would hold pictures of {', '.join(f'{h}x{w}' for h, w in sorted(sizes))}; set batch=1, "
            "or preprocess=resize_and_crop, scale_width_and_crop or crop"
        )
    return torch.from_numpy(np.stack(pictures))


_last = threading.local()  # the side-by-side picture a thread decoded last: its other half is often asked for next


def _picture(source: Source, channels: int, how: Preparation) -> Picture:
    wanted = (source.path, channels, how.bits, how.white)
    if source.half is None:
        return read_picture(*wanted)
    if getattr(_last, "key", None) != wanted:
        _last.key = None
        _last.picture = halves(read_picture(*wanted), source.path)
        _last.key = wanted
    half: Picture = _last.picture[source.half]
    return half


def _next_readable(sides: Sequence[Side], index: int) -> list[Picture]:
    """Picture `index` of each side, or of the next row that can be used on all of them."""
    unreadable = sides[0].unreadable
    for at in _from(index, len(sides[0])):
        row = [side.sources[at].path for side in sides]
        if any(path in unreadable for path in row):
            continue
        pictures = []
        for side, path in zip(sides, row, strict=True):
            try:
                pictures.append(side[at])
            except UnsupportedInput as error:
                unreadable.add(path, error)
                break
        else:
            return pictures
    raise _none_left(sides[0])


def _from(index: int, count: int) -> Iterator[int]:
    return itertools.chain(range(index, count), range(index))


def _none_left(side: Side) -> UnsupportedInput:
    return UnsupportedInput(f"train: no picture of this side can be used, {side.sources[0].path} and all the others")


def _by(picture: Picture) -> str:
    return f"{picture.shape[0]}x{picture.shape[1]}"
