"""Where a training runs, in how many processes, and how precisely."""

from __future__ import annotations

import logging
import os

import torch
import torch.distributed as dist
from gantrt.errors import DeviceUnavailable, UsageError
from lightning_fabric import Fabric

log = logging.getLogger("gantrt")
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # we say ourselves what is trained where

_PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def open_fabric(device: str, precision: str) -> Fabric:
    """The device and precision to train with; "auto" takes a GPU where there is one.

    Within a process that torchrun started it joins the others; each takes the GPU of its local rank.
    Raises UsageError for words that mean no device, DeviceUnavailable for a device that is not here.
    """
    here, processes = _processes()
    kind, _, index = device.partition(":")
    if device == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind not in ("cpu", "cuda") or (index and (kind == "cpu" or not index.isdigit())):
        raise UsageError(f"train: there is no device {device!r}; there are auto, cpu, cuda and cuda:N")
    if kind == "cuda" and not torch.cuda.is_available():
        raise DeviceUnavailable("train: this PyTorch finds no CUDA device; give --device cpu, or see `gantrt doctor`")
    if index and processes > 1:
        raise UsageError(f"train: torchrun gives each process its own GPU; say --device cuda, not {device}")
    if kind == "cuda" and here > torch.cuda.device_count():
        raise DeviceUnavailable(f"train: {here} processes here want a GPU each; there are {torch.cuda.device_count()}")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise DeviceUnavailable(f"train: there is no {device}; CUDA devices here: {torch.cuda.device_count()}")
    if kind == "cpu" and precision == "fp16":
        raise UsageError("train: fp16 needs a GPU; use bf16 or fp32 on a CPU")
    if kind == "cpu" and precision == "bf16" and not has_bf16():
        log.warning("train: this CPU has no bf16 arithmetic; bf16 will be slower than fp32")
    if kind == "cuda":
        torch.backends.cudnn.benchmark = True  # batches have one shape
        torch.set_float32_matmul_precision("high")  # TF32, as convolutions have it by default
    fabric = Fabric(
        accelerator=kind,
        devices=here if processes > 1 or kind == "cpu" else [int(index or 0)],
        num_nodes=processes // here,
        strategy="ddp" if processes > 1 else "auto",
        precision=_PRECISIONS[precision],
    )
    fabric.launch()
    return fabric


def is_first_process() -> bool:
    """Whether this process speaks for all: it runs alone, or torchrun counts it as the first."""
    return not dist.is_torchelastic_launched() or os.environ["RANK"] == "0"


def has_bf16() -> bool:
    known = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in known)


def _processes() -> tuple[int, int]:
    """How many torchrun started on this machine, and on all."""
    if not dist.is_torchelastic_launched():
        return 1, 1
    return int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
