"""The pictures int8 goes by: some show NNCF which values occur, others are held out to judge what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from gantrt import frame_to_tensor
from gantrt.errors import UnsupportedInput
from gantrt.manifest import Direction
from numpy.typing import NDArray
from torch import Tensor

from .data import to_float
from .pictures import Picture, halves, list_pictures, read_picture
from .preparation import Preparation, resize
from .sizes import HeightWidth
from .sources import Source, find

PICTURES = 64  # that ranges are taken from
HELD_OUT = 16
LEAST = 10  # pictures, of which a fifth is held out
_SEED = 0
_NAMED = 3  # unreadable pictures in an error

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Calibration:
    """Which files are shown and which are held out; the same ones each time a folder is given."""

    folder: Path
    shown: tuple[Source, ...]
    held_out: tuple[Source, ...]
    channels: int

    @classmethod
    def of(cls, folder: str | Path, channels: int, direction: Direction, *, swap: bool = False) -> Calibration:
        """Choose from a folder of pictures such as the engine will get, or from one a training takes.

        Of the latter the pictures of the side that `direction` starts from, and its test pictures are the held-out
        ones. Raises UnsupportedInput if there are too few, or if one cannot be read.
        """
        folder = Path(folder)
        if not folder.exists():
            raise UnsupportedInput(f"export: --calibration {folder}: no such folder")
        if _for_training(folder):
            train, test = find(folder)
            side = "b" if (direction == "b2a") != swap else "a"
            sources, apart = getattr(train, side), getattr(test, side) if test else []
        elif folder.is_dir():
            sources, apart = [Source(path, path.name) for path in list_pictures(folder)], []
        else:
            raise UnsupportedInput(f"export: --calibration {folder}: is a file; give a folder of pictures")
        if len(sources) < LEAST:
            raise UnsupportedInput(
                f"export: --calibration {folder}: holds {len(sources)} pictures; int8 wants {LEAST} at least, "
                f"better {PICTURES + HELD_OUT}, such as the engine will get"
            )
        if not apart:
            count = min(HELD_OUT, len(sources) // 5)
            mixed = _mixed(sources, PICTURES + count)
            apart, sources = mixed[:count], mixed[count:]
        made = cls(folder, tuple(_mixed(sources, PICTURES)), tuple(_mixed(apart, HELD_OUT)), channels)
        made._check()
        return made

    def batches(self, height: int, width: int, batch: int) -> list[Array]:
        """The shown pictures as the network gets them, each (batch, C, height, width) in [-1, 1]."""
        whole = [list(self.shown[i : i + batch]) for i in range(0, len(self.shown) - batch + 1, batch)]
        return [self._prepared(sources, height, width) for sources in whole or [self._filled(self.shown, batch)]]

    def draw(self, n: int, height: int, width: int) -> Tensor:
        """n of the held-out ones, (n, C, height, width) in [-1, 1]; they begin anew if n is more."""
        return torch.from_numpy(self._prepared(self._filled(self.held_out, n), height, width))

    @staticmethod
    def _filled(sources: Sequence[Source], n: int) -> list[Source]:
        return [sources[i % len(sources)] for i in range(n)]

    def _prepared(self, sources: Sequence[Source], height: int, width: int) -> Array:
        """Resized and scaled by what the runtime does it with."""
        made = np.empty((len(sources), self.channels, height, width), np.float32)
        for n, source in enumerate(sources):
            picture = self._read(source)
            if self.channels in (1, 3):
                frame_to_tensor(picture, out=made[n : n + 1], color="rgb")
            else:  # no frame of a runtime
                small = resize(picture, HeightWidth(height, width), Preparation(0, 0, interpolation="bilinear"))
                made[n] = to_float(torch.from_numpy(small[None]))[0].numpy()
        return made

    def _read(self, source: Source) -> Picture:
        picture = read_picture(source.path, self.channels)
        return picture if source.half is None else np.ascontiguousarray(halves(picture, source.path)[source.half])

    def _check(self) -> None:
        faults = []
        for source in (*self.shown, *self.held_out):
            try:
                self._read(source)
            except UnsupportedInput as error:
                faults.append(str(error))
        if faults:
            more = f"; and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
            raise UnsupportedInput(
                f"export: --calibration {self.folder}: {len(faults)} of {len(self.shown) + len(self.held_out)} "
                f"pictures cannot be used: {'; '.join(faults[:_NAMED])}{more}"
            )


def _for_training(path: Path) -> bool:
    names = ("trainA", "trainB", "train")
    return path.suffix == ".txt" or any((path / n).is_dir() or (path / f"{n}.txt").is_file() for n in names)


def _mixed(sources: Sequence[Source], count: int) -> list[Source]:
    """`count` of them, spread over the whole list."""
    order = np.random.default_rng(_SEED).permutation(len(sources))[:count]
    return [sources[i] for i in order.tolist()]
