"""The four families' generators at their papers' sizes, with seeded random weights: in torch, as our engine files,
and as what a user exports who does not know us."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import torch
from gantrt_training import parity
from gantrt_training.export import Request, export_generator
from gantrt_training.family import load_family
from gantrt_training.nets.norm import batch_norm_as
from gantrt_training.peers import Network
from gantrt_training.tracing import Source
from torch.utils.flop_counter import FlopCounterMode

FAMILIES: dict[str, dict[str, Any]] = {  # family -> what its configuration overrides
    "pix2pix": {},
    "cyclegan": {},
    "discogan": {"bottleneck": 100},
    "ugatit": {"light": True},
}
TITLES = {
    "pix2pix": "pix2pix U-Net-256",
    "cyclegan": "CycleGAN ResNet-9",
    "discogan": "DiscoGAN 64",
    "ugatit": "U-GAT-IT light",
}


def generator(family_name: str) -> Source:
    """Seeded: the same weights each time, of the scale the family initialises them with."""
    torch.manual_seed(0)
    family = load_family(family_name)
    config = family.Config(**FAMILIES[family_name])
    network = family.build(config)[family.generators["a2b"]].eval()
    return Source(family, config, network, norm_mode=family.norm_mode(config))


def export(family_name: str, path: Path, request: Request | None = None) -> Path:
    """An engine file, checked against torch as always."""
    export_generator(generator(family_name), path, request)
    return path


def export_int8(family_name: str, path: Path, calibration: Path | None, scratch: Path) -> Path:
    """An engine in int8, calibrated on a folder of pictures, or on drawn ones: for speed, these do as well.

    Whatever it loses: random weights make no picture that could be lost.
    """
    folder = calibration or _drawn(scratch / "calibration")
    with patch.dict(parity.LEAST_DB, int8=0.0):
        return export(family_name, path, Request(precision="int8", calibration=folder))


def export_plain(network: Network, size: int, path: Path) -> Path:
    """What `torch.onnx.export` makes of the network, with nothing of ours in it."""
    ours_unknown = patch("torch.onnx.is_in_onnx_export", return_value=False)  # our norms then say what they compute
    with _quiet(), torch.no_grad(), batch_norm_as(network.norm_mode), ours_unknown:
        torch.onnx.export(
            network,
            (torch.zeros(1, 3, size, size),),
            str(path),
            dynamo=True,
            external_data=False,
            input_names=["input"],
            output_names=["output"],
            opset_version=18,
        )
    return path


def multiplications(network: Network, size: int) -> int:
    """Multiply-adds of one picture by the paper's layers; a transposed convolution's by the pixels of its input."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), batch_norm_as(network.norm_mode), counter:
        network(torch.zeros(1, 3, size, size))
    return int(counter.get_total_flops()) // 2


def _drawn(folder: Path, count: int = 15, size: int = 286) -> Path:
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        coarse = random.integers(0, 256, (9, 9, 3), np.uint8)
        picture = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC).astype(np.int16)
        picture += random.integers(-12, 13, picture.shape, np.int16)
        cv2.imwrite(str(folder / f"{i:02}.png"), picture.clip(0, 255).astype(np.uint8))
    return folder


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter talks."""
    logging.disable(logging.WARNING)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
