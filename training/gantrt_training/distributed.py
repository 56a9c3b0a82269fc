"""Several processes that train as one: what they agree on, and what each keeps to itself.

torchrun starts them; each has its own GPU, or its share of a CPU. Weights are never sent: all begin with the same ones,
average their gradients in each step and so stay equal to the bit. Replay pools, random generators and BatchNorm's
running statistics are each process's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from gantrt.errors import GantrtError
from lightning_fabric import Fabric
from torch import Tensor

T = TypeVar("T")

BUCKET = 16 << 20  # numbers that are averaged in one message, 64 MiB


class World:
    """All processes of a training. Every method is one that all of them must call, in the same order."""

    def __init__(self, fabric: Fabric) -> None:
        self.rank, self.size = fabric.global_rank, fabric.world_size
        # Flags and objects go from CPU to CPU: no GPU is waited for.
        self._words = dist.new_group(backend="gloo") if self.size > 1 else None

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes."""
        return bool(self.rank == 0)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each by its mean over the processes, in place."""
        if self.size == 1:
            return
        for bucket in _buckets(tensors):
            flat = bucket[0] if len(bucket) == 1 else torch.cat([tensor.reshape(-1) for tensor in bucket])
            dist.all_reduce(flat)
            flat /= self.size
            if len(bucket) > 1:
                parts = torch.split(flat, [tensor.numel() for tensor in bucket])
                torch._foreach_copy_(bucket, [p.view_as(t) for p, t in zip(parts, bucket, strict=True)])

    def any(self, flag: bool) -> bool:
        """Whether one of them says so."""
        if self.size == 1:
            return flag
        said = torch.tensor(int(flag))
        dist.all_reduce(said, dist.ReduceOp.MAX, group=self._words)
        return bool(said)

    def gather(self, value: Any) -> list[Any]:
        """What each has, in the order of their ranks, to the first; [] to the others. Tensors come to the CPU."""
        if self.size == 1:
            return [value]
        values = [None] * self.size if self.is_first else None
        dist.gather_object(_to_cpu(value), values, group=self._words)
        return values or []

    def first(self, do: Callable[[], T]) -> T:
        """What `do` returns to the first process, which alone runs it; its GantrtError is raised in all of them."""
        if self.size == 1:
            return do()
        answer: list[Any] = [None, None]
        if self.is_first:
            try:
                answer[0] = do()
            except GantrtError as error:
                answer[1] = error
        dist.broadcast_object_list(answer, 0, group=self._words)
        if answer[1] is not None:
            raise answer[1]
        return answer[0]  # type: ignore[no-any-return]

    def leave(self) -> None:
        """At the end of a training, when all are there."""
        if self.size > 1:
            dist.destroy_process_group()


def _buckets(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    found: list[list[Tensor]] = []
    room = 0
    for tensor in tensors:
        if tensor.numel() > room:
            found.append([])
            room = BUCKET
        found[-1].append(tensor)
        room -= tensor.numel()
    return found


def _to_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.cpu()
    if isinstance(value, dict):
        return {key: _to_cpu(one) for key, one in value.items()}
    return type(value)(map(_to_cpu, value)) if isinstance(value, (list, tuple)) else value
