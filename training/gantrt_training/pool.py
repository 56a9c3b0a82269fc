"""The replay pool: pictures made earlier, which a judge sees again (Shrivastava et al. 2017, arXiv:1612.07828)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from gantrt.errors import UsageError
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


class StaticPool(ImagePool):
    """The same pool for a step that is captured once and replayed: it draws alike and answers alike, bit for bit.

    What is random and what grows is decided on the CPU before a step. On the device the pictures lie in one tensor, and
    four rows of numbers say what becomes of those queried, so that each query is the same few operations. All pictures
    have one shape.
    """

    def __init__(self, pool: ImagePool) -> None:
        """In the place of `pool`, which must still be empty and draws no more itself."""
        super().__init__(pool.size)
        self._generator = pool._generator
        self.queries: list[int] = []  # pictures in each query since `begin`
        self._drawing = True
        self._count = 0
        self._rows: Tensor | None = None  # (size + 1, C, H, W); the last takes what is not kept
        self._moves: dict[tuple[int, int], Tensor] = {}  # of the n-th query of a step, of so many pictures

    def __len__(self) -> int:
        return self._count

    def begin(self, *, drawing: bool) -> None:
        """A step begins. Its queries draw, or (drawing=False) do what `draw` will say before each replay."""
        self.queries, self._drawing = [], drawing

    def draw(self, queries: Sequence[int]) -> None:
        """Decide what queries of so many pictures do in the replay that comes next."""
        for index, count in enumerate(queries):
            self._decide(index, count)

    @torch.no_grad()
    def query(self, images: Tensor) -> Tensor:
        if not self.size:
            return super().query(images)
        images, index = images.detach(), len(self.queries)
        rows = self._room(images)
        self.queries.append(len(images))
        if self._drawing:
            self._decide(index, len(images))
        from_pool, row, source, put = self._moves[index, len(images)]
        kept, given = rows.index_select(0, row), images.index_select(0, source)
        answer = torch.where(from_pool.bool().view(-1, 1, 1, 1), kept, given)
        rows.index_copy_(0, put, images)
        return answer.contiguous(memory_format=_memory_format(images))

    def _decide(self, index: int, count: int) -> None:
        moves = torch.tensor(self._drawn(count))
        device = moves.device if self._rows is None else self._rows.device
        if device.type == "cuda":
            moves = moves.pin_memory()  # of its own each time: the copy may come later
        if (index, count) not in self._moves:
            self._moves[index, count] = torch.empty_like(moves, device=device)
        self._moves[index, count].copy_(moves, non_blocking=True)

    def _drawn(self, count: int) -> list[list[int]]:
        """For each picture of a query: is the answer one of the pool, of which row, or which of the query, and into
        which row the picture goes."""
        newest: dict[int, int] = {}  # row → the picture of this query that it then holds
        answers, rows = [], []
        for index in range(count):
            answer, row = (0, 0, index), self.size
            if self._count < self.size:
                row, self._count = self._count, self._count + 1
            elif self._draw(2):
                row = self._draw(self.size)
                answer = (0, 0, newest[row]) if row in newest else (1, row, 0)
            answers.append(answer)
            rows.append(row)
            newest[row] = index
        put = [row if newest[row] == index else self.size for index, row in enumerate(rows)]
        return [*map(list, zip(*answers, strict=True)), put]

    def _room(self, images: Tensor) -> Tensor:
        """The pool's rows, made for such pictures when the first come."""
        kept = self._images if self._rows is None else [self._rows[0]]
        strange = next((image.shape for image in kept if image.shape != images.shape[1:]), None)
        if strange is not None:
            raise UsageError(
                f"pool: with cuda_graph all pictures have one shape, got {tuple(images.shape[1:])} and kept are "
                f"{tuple(strange)}; set cuda_graph=false, or pool_size=0"
            )
        if self._rows is None:
            shape = (self.size + 1, *images.shape[1:])
            self._rows = torch.empty(
                shape, dtype=images.dtype, device=images.device, memory_format=_memory_format(images)
            )
            for row, image in enumerate(self._images):
                self._rows[row].copy_(image)
            self._images = []
        return self._rows

    def state_dict(self) -> dict[str, Any]:
        """As an ImagePool's."""
        kept = self._images if self._rows is None else [row.clone() for row in self._rows[: self._count]]
        return {"images": list(kept), "generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As an ImagePool's. The rows are made anew: what was captured before must be dropped."""
        super().load_state_dict(state)
        self._rows, self._count = None, len(self._images)


def _memory_format(images: Tensor) -> torch.memory_format:
    last = not images.is_contiguous() and images.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
