"""The global random generators: their seed, and their states as a checkpoint keeps them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn


def seed_everything(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  a family may draw from the global generators
    random.seed(seed)


def random_state() -> dict[str, Any]:
    """The global generators' states, as tensors and numbers."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [str(kind), torch.from_numpy(np.asarray(keys, np.int64)), int(position), int(has_gauss), float(gauss)],
        "python": random.getstate(),
    }


def set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"].cpu())
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([one.cpu() for one in state["cuda"]])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), *rest))  # noqa: NPY002
    random.setstate(state["python"])


@contextmanager
def rehearsal(nets: Sequence[nn.Module]) -> Iterator[None]:
    """What runs within can be run again with the same outcome: torch's generators and the buffers of `nets` go back.

    While a CUDA graph is captured generators cannot go back; what runs within must not draw then.
    """
    buffers = [buffer for net in nets for buffer in net.buffers()]
    before = [buffer.clone() for buffer in buffers]
    devices = {p.device.index for net in nets for p in net.parameters() if p.is_cuda}
    captured = bool(devices) and torch.cuda.is_current_stream_capturing()
    with torch.random.fork_rng(list(devices), enabled=not captured):
        yield
    for buffer, value in zip(buffers, before, strict=True):
        buffer.copy_(value)


def seed_of_process(seed: int, rank: int) -> int:
    """What process `rank` > 0 of a training draws its dropout from; the first keeps the recipe's seed."""
    return int(np.random.SeedSequence((seed, rank)).generate_state(1)[0])
