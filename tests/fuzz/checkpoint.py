"""Our own checkpoints: what a .safetensors file says of itself, its networks, and what is made of them."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

import torch
from gantrt.errors import GantrtError
from gantrt.summary import summary
from gantrt_training.checkpoint import KEY, describe, load_run, read_description
from gantrt_training.family import load_family, make_config
from safetensors.torch import save

from . import each_reads, scratch_file
from .choices import Choices, spoilt

ALLOWED = (GantrtError,)


@functools.cache
def _sound() -> tuple[dict[str, object], dict[str, torch.Tensor]]:
    family = load_family("discogan")
    config = make_config(family, "paper", {"ngf": "1", "ndf": "1"})
    nets = family.build(config)
    nets = torch.nn.ModuleDict({"g_ab": nets["g_ab"]})
    tensors = {name: value.detach().contiguous() for name, value in nets.state_dict().items()}
    return dataclasses.asdict(describe(family, "paper", config, nets)), tensors


def seeds() -> list[bytes]:
    raw, tensors = _sound()
    whole = save(tensors, {KEY: json.dumps(raw), "format": "pt"})
    return [whole, save({"a.b": torch.zeros(2)}), *(bytes([i, 5 * i, 9 * i, 3 * i, i]) for i in range(24))]


def run(data: bytes) -> None:
    if len(data) < 200:
        raw, tensors = _sound()
        path = scratch_file("spoilt.safetensors", save(tensors, {KEY: json.dumps(spoilt(raw, Choices(data)))}))
    else:
        path = scratch_file("whole.safetensors", data)
    each_reads(path, (read_description, summary, _shown, load_run))


def _shown(path: Path) -> None:
    from gantrt.cli.inspect import _checkpoint

    for line in _checkpoint(summary(path)):
        assert all(isinstance(text, str) for text in line)
