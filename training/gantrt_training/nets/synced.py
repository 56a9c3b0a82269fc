"""BatchNorm whose statistics are those of the batches of all processes, on GPUs and CPUs alike."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """In train mode it equals a BatchNorm over the pictures of all processes, which must have equally many.

    Statistics are taken in float32. In eval mode, and in a single process, it is a BatchNorm2d.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not dist.is_initialized():
            return super().forward(x)
        wide, processes = x.float(), dist.get_world_size()
        mean = _sum_over_processes(wide.mean((0, 2, 3))) / processes
        centred = wide - mean.view(1, -1, 1, 1)
        variance = _sum_over_processes(centred.square().mean((0, 2, 3))) / processes
        with torch.no_grad():
            count = processes * x.numel() // x.shape[1]
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / max(count - 1, 1)), self.momentum)  # unbiased, as torch's
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)).to(x.dtype)


def synchronise(nets: nn.Module) -> int:
    """Turn every BatchNorm2d in `nets` into a synced one, in place, with its own tensors; how many there were."""
    found = [module for module in nets.modules() if type(module) is nn.BatchNorm2d]
    for module in found:
        module.__class__ = SyncedBatchNorm2d
    return len(found)


class _Sum(torch.autograd.Function):
    """The sum over all processes; so is the gradient, since each process's loss depends on everyone's input."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        return _sum_over_processes(gradients[0].contiguous())


def _sum_over_processes(x: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(x)  # type: ignore[no-untyped-call]
    return total
