"""Is it the same picture? What an engine is compared on, and how near to torch's pictures its own are."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from gantrt.errors import BuildFailed, UnsupportedInput
from gantrt.manifest import Manifest
from torch import Tensor, nn

from .calibration import HELD_OUT
from .data import Data, to_float
from .parity import Pair, measure, measure_bf16
from .recipe import Recipe
from .tracing import Source, as_tested

log = logging.getLogger("gantrt")

Pictures = Callable[[int, int, int], Tensor]  # (n, height, width) -> (n, channels, height, width) in [-1, 1]


def synthetic(channels: int) -> Pictures:
    """Pictures with large and small structure, the same ones each time."""

    def draw(n: int, height: int, width: int) -> Tensor:
        random = torch.Generator().manual_seed(0)
        coarse = torch.rand(n, channels, 5, 5, generator=random) * 2 - 1
        fine = torch.rand(n, channels, height, width, generator=random) * 2 - 1
        smooth = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
        return (smooth + 0.2 * fine).clamp_(-1, 1)

    return draw


def pictures_of_run(recipe: Recipe | None, source: Source) -> Pictures | None:
    """Test pictures of the data the run was trained with; None, and a line in the log, if they are gone."""
    if recipe is None:
        return None
    if not recipe.data:  # an import
        log.info("export: an imported run has no pictures; comparing with torch on made-up ones")
        return None
    channels = (source.config.channels_a, source.config.channels_b)
    try:
        data = Data(
            Path(recipe.data),
            channels,
            recipe.preparation(),
            paired=False,
            swap=recipe.swap,
            max_unreadable=recipe.max_unreadable,
        )
    except UnsupportedInput:
        log.info("export: %s is not there any more; comparing with torch on made-up pictures", recipe.data)
        return None
    side = data.test_a if source.direction == "a2b" else data.test_b

    def draw(n: int, height: int, width: int) -> Tensor:
        indices = np.linspace(0, len(side) - 1, n).round().astype(int)
        x = to_float(torch.from_numpy(np.stack([side.whole(index) for index in indices.tolist()])))
        if x.shape[2:] != (height, width):
            x = F.interpolate(x, (height, width), mode="bicubic", antialias=True).clamp_(-1, 1)
        return x

    return draw


def torch_pairs(source: Source, manifest: Manifest, pictures: Pictures | None, samples: int) -> list[Pair]:
    """Batches of pictures, and what torch makes of them."""
    spec, draw = manifest.input, pictures or synthetic(source.channels)
    samples = HELD_OUT if manifest.precision == "int8" else samples
    sizes = [(spec.height, spec.width)]
    if spec.dynamic:
        sizes.append((spec.height + spec.multiple, spec.width + 2 * spec.multiple))
    batches = math.ceil(samples / manifest.batch / len(sizes))
    pairs = []
    with as_tested(source.generator, manifest.norm_mode):
        for height, width in sizes:
            for x in torch.split(draw(batches * manifest.batch, height, width), manifest.batch):
                pairs.append((x.numpy(), source.family.image(source.generator, x).numpy()))
    return pairs


def compare(source: Source, manifest: Manifest, path: Path, pairs: list[Pair]) -> dict[str, float]:
    """The worst over the runtimes that are here, and each one's own; BuildFailed if one is too far from torch.

    What bfloat16 would make of a float32 graph is told, but is a choice of whoever runs it.
    """
    measured, skipped = measure(path, manifest.precision, pairs)
    for runtime, reason in skipped.items():
        log.info("export: not compared under %s, which is %s", runtime, reason)
    parity: dict[str, float] = {
        "max_abs": max(each.max_abs for each in measured),
        "psnr_db": min(each.psnr_db for each in measured),
        "samples": len(pairs) * manifest.batch,
    }
    linear = (module for module in source.generator.modules() if isinstance(module, nn.Linear))
    longest_sum = max((module.in_features for module in linear), default=0)
    for each in measured:
        fault = each.fault(manifest.precision, longest_sum)
        if fault:
            raise BuildFailed(f"export: under {each.runtime} the engine's pictures are not torch's: {fault}")
    if manifest.precision in ("fp32", "int8") and (bf16 := measure_bf16(path, pairs)):
        measured.append(bf16)
    for each in measured:
        parity |= {f"{each.runtime}_max_abs": each.max_abs, f"{each.runtime}_psnr_db": each.psnr_db}
    return {name: float(f"{value:.4g}") for name, value in parity.items()}
