"""The generator in torch, as its user would run it: what `gantrt bench --against torch` and the benches time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from gantrt.errors import EngineMismatch
from gantrt.manifest import Manifest
from numpy.typing import NDArray
from torch import Tensor, nn

from .checkpoint import load_run
from .family import Family
from .nets.norm import NormMode, batch_norm_as

Once = Callable[[], NDArray[np.float32]]


class Network(nn.Module):
    """A generator as it is tested: its picture alone (some also make a classifier's logits), its norms by `norm_mode`.

    It is put into evaluation mode.
    """

    def __init__(self, family: Family, generator: nn.Module, norm_mode: str) -> None:
        super().__init__()
        self.generator, self._image = generator.eval(), family.image
        self.norm_mode: NormMode = "instance" if norm_mode == "instance" else "running"

    def forward(self, x: Tensor) -> Tensor:
        return self._image(self.generator, x)


def network_of(run: str | Path, manifest: Manifest) -> Network:
    """The network of the RUN or checkpoint that the engine with this manifest was exported from.

    Raises EngineMismatch if it was exported from another one.
    """
    checkpoint = load_run(run)
    if manifest.source_sha256 and manifest.source_sha256 != checkpoint.sha256:
        raise EngineMismatch(
            f"{run}: is not what the engine was exported from (sha256 {checkpoint.sha256[:12]}, the engine says "
            f"{manifest.source_sha256[:12]}); export it again, or give the checkpoint itself"
        )
    generator = checkpoint.nets[checkpoint.family.generators[manifest.direction]]
    return Network(checkpoint.family, generator, manifest.norm_mode)


def torch_peer(name: str, network: Network, x: NDArray[np.float32], threads: int | None = None) -> Once:
    """One of these, taking x (N, C, H, W) in float32 and making its picture in float32:

    torch          eager, as every script has it
    torch-bf16     channels_last, under autocast to bfloat16
    torch-compile  torch.compile with its defaults; it is compiled at the first call
    """
    half = name == "torch-bf16"
    layout = torch.channels_last if half else torch.contiguous_format
    inputs = torch.from_numpy(x)
    if half:
        network = copy.deepcopy(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    run: Callable[[Tensor], Tensor] = torch.compile(network) if name == "torch-compile" else network

    def once() -> NDArray[np.float32]:
        with _as_tested(network, threads), torch.autocast("cpu", torch.bfloat16, half):
            made: NDArray[np.float32] = run(inputs.contiguous(memory_format=layout)).float().contiguous().numpy()
        return made

    return once


@contextmanager
def _as_tested(network: Network, threads: int | None) -> Iterator[None]:
    with torch.inference_mode(), batch_norm_as(network.norm_mode), _threads(threads):
        yield


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """torch's thread count is the process's: it is put back."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count is not None:
            torch.set_num_threads(before)
