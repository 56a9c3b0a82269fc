"""Sample sheets: what the networks make of the same few test pictures as a training goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from gantrt.atomic import atomic_path
from torch import Tensor, nn

from .data import Data, Side, to_float, to_pictures
from .family import Family
from .nets.norm import NormMode, batch_norm_as
from .pictures import Picture, write_as_stored

_GAP = 2  # pixels between pictures


class SampleSheet:
    """For each direction three rows: pictures, their translations, and these translated back.

    Where there is no way back, or pictures come in pairs, the third row shows the pictures wanted.
    """

    def __init__(
        self,
        family: Family,
        config: object,
        data: Data,
        count: int,
        device: torch.device,
        norm_mode: NormMode | None = None,
    ) -> None:
        """norm_mode  what BatchNorms go by; None: what the family says"""
        self._norm_mode: NormMode = norm_mode or family.norm_mode(config)
        self._family, self._paired = family, data.paired
        self._a, self._b = (_spread(side, count).to(device) for side in (data.test_a, data.test_b))

    def draw(self, nets: nn.ModuleDict) -> Picture:
        """(height, width, 3) RGB. Networks are put into eval mode for it, and back into train mode."""
        rows: list[Tensor] = []
        nets.eval()
        with torch.no_grad(), batch_norm_as(self._norm_mode):
            for direction in self._family.generators:
                rows += self._rows(nets, direction)
        nets.train()
        return _mosaic([as_seen(to_pictures(row)) for row in rows])

    def save(self, nets: nn.ModuleDict, path: Path) -> None:
        with atomic_path(path) as temporary:
            write_as_stored(temporary, self.draw(nets)[..., ::-1])

    def _rows(self, nets: nn.ModuleDict, direction: str) -> list[Tensor]:
        given, wanted = (self._a, self._b) if direction == "a2b" else (self._b, self._a)
        back = self._family.generators.get("b2a" if direction == "a2b" else "a2b")
        made = self._translate(nets[self._family.generators[direction]], given)
        if back is None or self._paired:
            return [given, made, wanted]
        return [given, made, self._translate(nets[back], made)]

    def _translate(self, net: nn.Module, x: Tensor) -> Tensor:
        one_by_one = torch.split(x, 1)  # in the memory that one picture needs
        return torch.cat([self._family.image(net, one) for one in one_by_one])


def as_seen(pictures: Picture) -> Picture:
    """(n, h, w, c) → (n, h, k w, 3), to look at.

    Grey and RGB as they are; of four channels the first three as colours and the fourth, alpha or infrared, in grey
    beside them; of any other number each in grey, side by side.
    """
    channels = pictures.shape[3]
    if channels in (1, 3):
        return np.broadcast_to(pictures, (*pictures.shape[:3], 3))
    parts = [pictures[..., :3], pictures[..., 3:]] if channels == 4 else np.split(pictures, channels, axis=3)
    return np.concatenate([np.broadcast_to(part, (*part.shape[:3], 3)) for part in parts], axis=2)


def _spread(side: Side, count: int) -> Tensor:
    indices = np.linspace(0, len(side) - 1, min(count, len(side))).round().astype(int)
    return to_float(torch.from_numpy(np.stack([side.whole(index) for index in indices.tolist()])))


def _mosaic(rows: list[Picture]) -> Picture:
    """Rows of pictures (n, h, w, 3), w of each row its own, on white."""
    height = rows[0].shape[1]
    wide = max(len(row) * (row.shape[2] + _GAP) - _GAP for row in rows)
    sheet = np.full((len(rows) * (height + _GAP) - _GAP, wide, 3), 255, np.uint8)
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            width = picture.shape[1]
            top, left = y * (height + _GAP), x * (width + _GAP)
            sheet[top : top + height, left : left + width] = picture
    return sheet
