"""Is the int8 picture still the same one? The gate, and which layers to keep in floating point where it is shut."""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Mapping, Sequence

import numpy as np
from gantrt.engine_file import attach_bodies, inlined
from gantrt.errors import GateFailed, UsageError
from numpy.typing import NDArray
from onnx import ModelProto

from .parity import LEAST_DB, Pair, openvino_has_bf16, psnr, run_in_openvino
from .quantise import Int8Layer, assemble, calibrate, compress_large_layers, quantisable

log = logging.getLogger("gantrt")

AUTO = "auto"
_RANKED_BY = 4  # batches; the order of layers needs no more

Array = NDArray[np.float32]
Pairs = Sequence[Pair]


def in_int8(
    model: ModelProto, batches: Sequence[Array], held_out: Pairs, keep_fp: Sequence[str] = ()
) -> tuple[ModelProto, list[str]]:
    """`model` in int8, and the names of the convolutions that stay in floating point.

    batches   what ranges are taken from
    held_out  what it is judged by
    keep_fp   names or patterns of nodes to keep; "auto": as many as it takes to pass
    Raises GateFailed, which names the layers to keep, if it does not come within LEAST_DB["int8"] of the held-out
    pictures; UsageError for names that are none.
    """
    kept = _named(model, [name for name in keep_fp if name != AUTO])
    attach_bodies(model)
    compress_large_layers(model)
    layers = calibrate(model, batches)
    reached = _fidelity(model, layers, kept, held_out)
    least = LEAST_DB["int8"]
    if reached < least:
        log.info("export: int8 reaches %.1f dB, %.0f are needed: looking for the layers that cost most", reached, least)
        wanted, then = _enough(model, layers, kept, batches, held_out)
        if AUTO not in keep_fp or len(wanted) == len(layers):
            raise GateFailed(
                f"export: int8 is {reached:.1f} dB from fp32 on {_count(held_out)} held-out pictures, at least "
                f"{least:.0f} dB needed; " + _advice(wanted, then, len(layers))
            )
        kept = wanted
        log.info("export: int8 but for %s: %.1f dB", ", ".join(kept), then)
    return assemble(model, _without(layers, kept)), kept


def _advice(wanted: Sequence[str], reached: float, layers: int) -> str:
    if len(wanted) == layers:
        return "no convolution can stay int8; export bf16 or fp16"
    return f"{len(wanted)} of {layers} convolutions kept make it {reached:.1f} dB: --keep-fp {' '.join(wanted)}"


def _named(model: ModelProto, patterns: Sequence[str]) -> list[str]:
    """The convolutions that `patterns` name."""
    names = quantisable(model)
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise UsageError(
                f"export: --keep-fp {pattern}: there is no such convolution; there are {', '.join(names)}; or auto"
            )
    return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


def _enough(
    model: ModelProto, layers: Mapping[str, Int8Layer], kept: Sequence[str], batches: Sequence[Array], held_out: Pairs
) -> tuple[list[str], float]:
    """The fewest of the worst layers, beyond `kept`, without which the rest passes; and what it then reaches.

    A layer's harm is the squared error it makes when it alone is int8. Errors of different layers hardly know of each
    other, so their sum says where to begin; from there on each step is measured.
    """
    seen = batches[: max(1, _RANKED_BY // len(batches[0]))]
    exact = run_in_openvino(inlined(model), "f32")
    pairs = [(x, exact(x).copy()) for x in seen]
    harm = {
        name: 10 ** (-_judge(assemble(model, {name: layer}), pairs) / 10)
        for name, layer in layers.items()
        if name not in kept
    }
    worst = sorted(harm, key=lambda name: -harm[name])
    allowed = 10 ** (-LEAST_DB["int8"] / 10)
    count = next((n for n in range(1, len(worst)) if sum(harm[name] for name in worst[n:]) <= allowed), len(worst))
    while True:
        wanted = [name for name in layers if name in kept or name in worst[:count]]
        reached = _fidelity(model, layers, wanted, held_out)
        if reached >= LEAST_DB["int8"] or count >= len(worst):
            return wanted, reached
        count += 1


def _fidelity(model: ModelProto, layers: Mapping[str, Int8Layer], kept: Sequence[str], pairs: Pairs) -> float:
    return _judge(assemble(model, _without(layers, kept)), pairs)


def _without(layers: Mapping[str, Int8Layer], kept: Sequence[str]) -> dict[str, Int8Layer]:
    return {name: layer for name, layer in layers.items() if name not in kept}


def _judge(model: ModelProto, pairs: Pairs) -> float:
    """PSNR in dB of what OpenVINO makes of it, computing the rest in what it would choose here."""
    run = run_in_openvino(inlined(model), "bf16" if openvino_has_bf16() else "f32")
    return psnr(run, pairs)[1]


def _count(pairs: Pairs) -> int:
    return sum(len(x) for x, _ in pairs)
