"""Checkpoints of other code-bases: pickles, archives of torch.save, .safetensors; and which networks they hold."""

from __future__ import annotations

import io
import pickle
import sys
import types
from pathlib import Path

import torch
from gantrt.errors import GantrtError
from gantrt_training.foreign import read_networks
from gantrt_training.importing import Request as _Request
from gantrt_training.importing import _find
from safetensors.torch import save

from . import scratch_file

ALLOWED = (GantrtError,)
CALLED: list[object] = []  # what a file made this process do


class _Evil:
    def __reduce__(self):
        return CALLED.append, ("code of a file was run",)


def seeds() -> list[bytes]:
    tensors = {
        "main.0.weight": torch.ones(2, 3, 4, 4), "model.1.weight": torch.ones(1, 3, 7, 7), "head.bias": torch.zeros(3),
    }  # fmt: skip
    found = [save(tensors), save(_discogan())]
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 4), torch.nn.BatchNorm2d(2))
    lent = types.ModuleType("someones_code")
    lent.Net = type("Net", (torch.nn.Sequential,), {"__module__": "someones_code"})
    sys.modules["someones_code"] = lent
    try:
        whole = lent.Net(torch.nn.Conv2d(3, 2, 4))
        for content in (tensors, {"genA2B": tensors, "step": 3}, module.state_dict(), whole, _Evil(), {"a": _Evil()}):
            for archive in (True, False):
                memory = io.BytesIO()
                torch.save(content, memory, _use_new_zipfile_serialization=archive)
                found.append(memory.getvalue())
    finally:
        del sys.modules["someones_code"]
    found += [pickle.dumps(_Evil(), protocol) for protocol in (2, 4)]
    CALLED.clear()
    return found


def _discogan() -> dict[str, torch.Tensor]:
    """The smallest generator as DiscoGAN's authors lay it out."""
    sizes = [(1, 1)] * 4 + [(1, 1)] * 4
    places = [0, *range(2, 2 + 3 * 7, 3)]
    found = {f"main.{place}.weight": torch.ones(*size, 4, 4) for place, size in zip(places, sizes, strict=True)}
    for place in places[1:-1]:
        names = ("weight", "bias", "running_mean", "running_var")
        found |= {f"main.{place + 1}.{name}": torch.ones(1) for name in names}
    return found


def run(data: bytes) -> None:
    path = scratch_file("foreign.pth", data)
    CALLED.clear()
    try:
        networks = read_networks(path)
        for tensors in networks.values():
            held = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
            assert held <= 64 * max(len(data), 1), "tensors hold more than their file"
        _recognise(path)
    finally:
        assert not CALLED, CALLED


def _recognise(path: Path) -> None:
    _find([path], _Request())
