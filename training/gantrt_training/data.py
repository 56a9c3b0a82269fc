"""Pictures for training: which belong to A and to B, and which of them, cut how, make the batch of a step.

A folder holds `trainA` and `trainB` (and `testA`, `testB` or `valA`, `valB`), or `train` (and `test` or `val`) with
pictures that show A left and B right. What a step sees is a function of the seed and the step alone, so a resumed
training sees what an uninterrupted one would have seen, however many threads decode.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from gantrt.errors import UnsupportedInput
from numpy.typing import NDArray
from torch import Tensor

from .pictures import Picture, halves, list_pictures, read_picture

Interpolation = Literal["bicubic", "bilinear"]

CACHE_BYTES = 1 << 30  # of decoded pictures, kept so that only the first epoch decodes
_EXPECTED = "expected trainA/ and trainB/, or train/ with pictures that show A left and B right"


@dataclass(frozen=True)
class Preparation:
    """How a picture becomes a training picture: resized to `load_size` squared, cut to `size` squared, mirrored."""

    size: int
    load_size: int
    flip: bool = False  # mirror every other picture
    interpolation: Interpolation = "bicubic"


class Source(NamedTuple):
    """Where one picture lies: a file, or the left (0) or right (1) half of one."""

    path: Path
    name: str  # within its folder, without suffix: partners share it
    half: int | None = None


Cuts = NDArray[np.int64]  # (n, 4): which pictures of one side, their cut's top and left, whether it is mirrored


class Side:
    """The pictures of one domain, resized and remembered as long as they fit into `cache_bytes`."""

    def __init__(
        self, sources: Sequence[Source], channels: int, preparation: Preparation, cache_bytes: int = CACHE_BYTES // 2
    ) -> None:
        self.sources, self.channels, self.preparation = list(sources), channels, preparation
        shape = (preparation.load_size, preparation.load_size, channels)
        kept = min(len(self.sources), cache_bytes // int(np.prod(shape)))
        self._cache = np.empty((kept, *shape), np.uint8)  # the system gives memory only to what has been written
        self._known = np.zeros(kept, bool)

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> Picture:
        """Picture `index`, (load_size, load_size, channels)."""
        if index >= len(self._cache):
            return self._read(index)
        kept: Picture = self._cache[index]
        if not self._known[index]:
            kept[:] = self._read(index)
            self._known[index] = True
        return kept

    def cut(self, cuts: Cuts, out: Picture) -> None:
        """Fill `out` (n, size, size, channels)."""
        size = self.preparation.size
        for n, (index, top, left, mirrored) in enumerate(cuts.tolist()):
            picture = self[index][top : top + size, left : left + size]
            out[n] = picture[:, ::-1] if mirrored else picture

    def whole(self, index: int) -> Picture:
        """Picture `index`, (size, size, channels), neither cut nor mirrored: as it is tested."""
        return resize(_picture(self.sources[index], self.channels), self.preparation.size, self.preparation)

    def _read(self, index: int) -> Picture:
        return resize(_picture(self.sources[index], self.channels), self.preparation.load_size, self.preparation)


class Data:
    """The training and test pictures of one folder."""

    def __init__(
        self, root: Path, channels: tuple[int, int], preparation: Preparation, *, paired: bool, swap: bool = False
    ) -> None:
        """Find them. `swap` exchanges A and B.

        Raises UnsupportedInput, which says what was expected, if there are none or if pairs are not complete.
        """
        self.preparation, self.paired = preparation, paired
        train, self.layout = _find(root, "train")
        if train is None:
            raise UnsupportedInput(f"train: {root} {_fault(root)}; {_EXPECTED}")
        test = _find(root, "test")[0] or _find(root, "val")[0]
        self.has_test = test is not None
        (self.a, self.b), (self.test_a, self.test_b) = (
            self._sides(found, channels, swap) for found in (train, test or train)
        )

    def _sides(
        self, found: tuple[list[Source], list[Source]], channels: tuple[int, int], swap: bool
    ) -> tuple[Side, Side]:
        if self.paired and found[0][0].half is None:
            found = _pair_by_name(*found)
        a, b = reversed(found) if swap else found
        return Side(a, channels[0], self.preparation), Side(b, channels[1], self.preparation)

    def __str__(self) -> str:
        return f"{len(self.a)} pictures of A, {len(self.b)} of B ({self.layout})"

    def summary(self) -> dict[str, int | str]:
        tested = {"test_a": len(self.test_a), "test_b": len(self.test_b)} if self.has_test else {}
        return {"layout": self.layout, "a": len(self.a), "b": len(self.b), **tested}


class Batches:
    """The batches of a training: `load(step)` makes the one of a step, iterating from a step on makes all."""

    def __init__(self, data: Data, batch: int, seed: int, max_pictures: int = 0) -> None:
        """max_pictures  of each side and epoch, drawn anew for each; 0: all."""
        self.data, self.batch, self.seed = data, batch, seed
        pictures = max(len(data.a), len(data.b))
        self.steps_per_epoch = max(1, min(pictures, max_pictures or pictures) // batch)
        self._plans: dict[int, tuple[Cuts, Cuts]] = {}

    def load(self, step: int) -> tuple[Tensor, Tensor]:
        """A and B, each (batch, size, size, channels) uint8 on the CPU."""
        epoch, at = divmod(step, self.steps_per_epoch)
        rows = slice(at * self.batch, (at + 1) * self.batch)
        size = self.data.preparation.size
        pair = []
        for side, plan in zip((self.data.a, self.data.b), self._plan(epoch), strict=True):
            out = np.empty((self.batch, size, size, side.channels), np.uint8)
            side.cut(plan[rows], out)
            pair.append(torch.from_numpy(out))
        return pair[0], pair[1]

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

    def _plan(self, epoch: int) -> tuple[Cuts, Cuts]:
        """All batches of an epoch: A in shuffled order, B its partner, or drawn at random (Zhu et al. 2017's code)."""
        plan = self._plans.get(epoch)
        if plan is None:
            plan = self._draw(epoch)
            self._plans = {**dict(list(self._plans.items())[-1:]), epoch: plan}  # threads may be in two epochs
        return plan

    def _draw(self, epoch: int) -> tuple[Cuts, Cuts]:
        rng, data, how = np.random.default_rng((self.seed, epoch)), self.data, self.data.preparation
        count, pictures = self.steps_per_epoch * self.batch, max(len(data.a), len(data.b))
        order = np.resize(rng.permutation(pictures), count)  # repeats a set that is smaller than one batch
        partner = order if data.paired else rng.integers(len(data.b), size=count)
        corner = rng.integers(how.load_size - how.size + 1, size=(2, 2, count))
        mirrored = rng.random((2, count)) < (0.5 if how.flip else 0.0)
        other = 0 if data.paired else 1  # a pair is cut and mirrored alike
        return (
            np.column_stack([order % len(data.a), *corner[0], mirrored[0]]),
            np.column_stack([partner, *corner[other], mirrored[other]]),
        )


def to_float(pictures: Tensor) -> Tensor:
    """(n, h, w, c) uint8 → (n, c, h, w) float32 in [-1, 1], on the same device."""
    planes = pictures.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    return planes.div_(127.5).sub_(1.0)


def to_pictures(x: Tensor) -> Picture:
    """(n, c, h, w) float in [-1, 1] → (n, h, w, c) uint8 on the CPU."""
    levels = (x.detach().float() + 1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
    return levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def resize(picture: Picture, size: int, preparation: Preparation) -> Picture:
    """(h, w, c) → (size, size, c), antialiased when it shrinks: Pillow's filters, which the papers' code uses."""
    if picture.shape[:2] == (size, size):
        return picture
    planes = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None]
    resized = F.interpolate(planes, (size, size), mode=preparation.interpolation, antialias=True, align_corners=False)
    return resized[0].permute(1, 2, 0).numpy()


_last = threading.local()  # the side-by-side picture a thread decoded last: its other half is often asked for next


def _picture(source: Source, channels: int) -> Picture:
    if source.half is None:
        return read_picture(source.path, channels)
    if getattr(_last, "key", None) != (source.path, channels):
        _last.picture = halves(read_picture(source.path, channels), source.path)
        _last.key = (source.path, channels)
    half: Picture = _last.picture[source.half]
    return half


def _find(root: Path, part: str) -> tuple[tuple[list[Source], list[Source]] | None, str]:
    """The pictures of `part` (train, test or val), or None, and how they lie."""
    folders = (root / f"{part}A", root / f"{part}B")
    if all(folder.is_dir() for folder in folders):
        a, b = (_sources(folder) for folder in folders)
        if a and b:
            return (a, b), "folders"
    if (root / part).is_dir() and (whole := _sources(root / part)):
        left, right = ([source._replace(half=half) for source in whole] for half in (0, 1))
        return (left, right), "side by side"
    return None, ""


def _sources(folder: Path) -> list[Source]:
    return [Source(path, path.relative_to(folder).with_suffix("").as_posix()) for path in list_pictures(folder)]


def _fault(root: Path) -> str:
    if not root.exists():
        return "does not exist"
    if not root.is_dir():
        return "is no folder"
    there = [name for name in ("trainA", "trainB", "train") if (root / name).is_dir()]
    empty = [name for name in there if not list_pictures(root / name)]
    if empty:
        return f"has no pictures in {' and '.join(empty)}"
    return f"has {there[0]} only" if there else "has no training pictures"


def _pair_by_name(a: list[Source], b: list[Source]) -> tuple[list[Source], list[Source]]:
    """Both lists in the same order, matched by their names without suffix."""
    first, second = (_by_name(side) for side in (a, b))
    alone = sorted(first.keys() ^ second.keys())
    if alone:
        only = first.get(alone[0]) or second[alone[0]]
        raise UnsupportedInput(
            f"train: {len(alone)} pictures have no partner of the same name on the other side, "
            f"the first is {only.path}; a paired family needs both, or train with an unpaired one"
        )
    names = sorted(first)
    return [first[name] for name in names], [second[name] for name in names]


def _by_name(side: list[Source]) -> dict[str, Source]:
    named: dict[str, Source] = {}
    for source in side:
        if source.name in named:
            twin = named[source.name].path
            raise UnsupportedInput(f"train: {twin} and {source.path} have the same name; keep one of them")
        named[source.name] = source
    return named
