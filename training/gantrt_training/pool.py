"""The replay pool: pictures made earlier, which a judge sees again (Shrivastava et al. 2017, arXiv:1612.07828)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class ImagePool:
    """Up to `size` pictures; once full, half of the queries get an old one, and the new one takes its place.

    size  0: every query returns what it was given
    seed  of its own generator, on the CPU whatever the device: a resumed run draws what the first would have
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        if size < 0:
            raise ValueError(f"pool: size must not be negative, got {size}")
        self.size = size
        self._images: list[Tensor] = []
        self._seed = seed
        self._generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self._images)

    def query(self, images: Tensor) -> Tensor:
        """(N, C, H, W) → the same dtype and device, detached: each picture itself, or one from the pool.

        At N = 1 pictures may differ in size, and so may what comes back.
        """
        answer = images.detach().clone()
        for index in range(len(answer) if self.size else 0):
            new = images[index].detach().clone()
            if len(self._images) < self.size:
                self._images.append(new)
            elif self._draw(2):
                slot = self._draw(self.size)
                old, self._images[slot] = self._images[slot], new
                if old.shape == new.shape:
                    answer[index].copy_(old)
                elif len(images) == 1:
                    return old[None].clone()
                else:
                    raise ValueError("pool: pictures of several sizes need batch=1, or pool_size=0")
        return answer

    def differ(self, rank: int) -> None:
        """Draw otherwise than the same pool of another process; rank 0 draws as ever."""
        self._generator.manual_seed(self._seed + (rank << 32))

    def _draw(self, below: int) -> int:
        return int(torch.randint(below, (), generator=self._generator))

    def state_dict(self) -> dict[str, Any]:
        """The pictures and the generator's state: plain tensors, so torch.load(weights_only=True) reads them."""
        return {"images": list(self._images), "generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave. Raises ValueError if it holds more pictures than fit into this pool."""
        images = list(state["images"])
        if len(images) > self.size:
            raise ValueError(f"pool: {len(images)} pictures were saved, this pool holds {self.size}; keep its size")
        self._images = images
        self._generator.set_state(state["generator"].cpu())
