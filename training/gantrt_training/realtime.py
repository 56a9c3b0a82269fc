"""A trained generator on a GPU with nothing but torch: our norms, channels last, half precision, one CUDA graph.

What runs is the generator's copy with less work (nets/streamlined.py); the generator itself stays as it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from gantrt.errors import DeviceUnavailable, UnsupportedInput, UsageError
from gantrt.frame_pipelines import FramePipelines, Network, Ticket
from gantrt.manifest import Direction
from torch import Tensor, nn

from .checkpoint import load_run
from .family import Family
from .nets.fused import fused_norms
from .nets.norm import NormMode, batch_norm_as
from .nets.streamlined import streamlined

Precision = Literal["fp16", "bf16", "fp32"]

_TYPES = {"fp16": (torch.float16, "float16"), "bf16": (torch.bfloat16, "bfloat16"), "fp32": (torch.float32, "float32")}


def load(
    run: str | Path,
    *,
    direction: Direction | None = None,
    size: tuple[int, int] | None = None,
    precision: Precision = "fp16",
    device: int = 0,
    slots: int = 1,
    color: Literal["rgb", "bgr"] = "rgb",
) -> Realtime:
    """The generator of a RUN folder or checkpoint, ready for frames on a GPU.

    direction  "a2b", "b2a"; None: the first there is
    size       (height, width) it runs at; None: the size it was trained with
    slots      frames in flight: 1 for latency, 3 for throughput
    Raises DeviceUnavailable without a GPU, UsageError for what the run cannot do, and what `load_run` raises.
    """
    if not torch.cuda.is_available():
        raise DeviceUnavailable("realtime: torch finds no GPU; on a CPU export the run and use gantrt.load")
    checkpoint = load_run(run)
    family = checkpoint.family
    there = [way for way, name in family.generators.items() if name in checkpoint.nets]
    chosen = direction or there[0]
    if chosen not in there:
        raise UsageError(f"realtime: this {family.name} has no generator {direction}; it has {' and '.join(there)}")
    rule, trained = family.size_rule(checkpoint.config), checkpoint.config.size
    height, width = size or rule.fixed or ((trained, trained) if isinstance(trained, int) else trained)
    if (rule.fixed and (height, width) != rule.fixed) or height % rule.multiple or width % rule.multiple:
        raise UsageError(f"realtime: size {height}x{width}: this {family.name} takes multiples of {rule.multiple} only")
    generator = checkpoint.nets[family.generators[chosen]]
    channels = checkpoint.config.channels_a if chosen == "a2b" else checkpoint.config.channels_b
    norm_mode = checkpoint.description.norm_mode
    return Realtime(family, generator, (channels, height, width), precision, norm_mode, device, slots, color)


class Realtime:
    """Frames in, frames of the same size out, like a Translator. Thread-safe. Close it, or use it in a `with`."""

    def __init__(
        self,
        family: Family,
        generator: nn.Module,
        input_size: tuple[int, int, int],
        precision: Precision,
        norm_mode: NormMode,
        device: int,
        slots: int,
        color: Literal["rgb", "bgr"],
    ) -> None:
        if precision not in _TYPES:
            raise UsageError(f"realtime: precision {precision!r}; there are {', '.join(_TYPES)}")
        self._norm_mode = norm_mode
        self._device = torch.device("cuda", device)
        self._dtype, name = _TYPES[precision]
        self._generator = streamlined(generator, norm_mode, family.image).placed(self._device, self._dtype)
        self._input = input_size
        with self._as_it_runs():
            output = self.network(torch.zeros(1, *input_size, dtype=self._dtype, device=self._device)).shape
        channels = (input_size[0], int(output[1]))
        network = Network(self._prepare, lambda *_: input_size[1:], channels, name, name, layout="nhwc", device=device)
        self.frames = FramePipelines(network, slots=slots, color=color)

    def __call__(self, frame: Any, out: Any = None) -> Any:
        """Translate one uint8 (H, W, C) frame, numpy or on the GPU."""
        return self.submit(frame).result(out)

    def submit(self, frame: Any) -> Ticket:
        """Queue one frame; `.result()` of what is returned is the translated one."""
        if tuple(frame.shape[2:]) not in ((1,), (3,)):
            raise UnsupportedInput(f"frame: must be (H, W, 3) or (H, W, 1) uint8, got {tuple(frame.shape)}")
        return self.frames.submit(frame)

    def network(self, x: Tensor) -> Tensor:
        """The generator alone, (1, C, H, W) in [-1, 1] to the same; call it within no other stream than its own."""
        return self._generator(x.contiguous(memory_format=torch.channels_last))  # type: ignore[no-any-return]

    def close(self) -> None:
        self.frames.close()

    def __enter__(self) -> Realtime:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prepare(self, slots: int, size: tuple[int, int]) -> Callable[[int, int, int, int], None]:
        """One memory pool for each slot: what a graph was captured with stays its own."""
        pools = [torch.cuda.MemPool() for _ in range(slots)]

        def enqueue(slot: int, x: int, y: int, stream: int) -> None:
            queue = torch.cuda.ExternalStream(stream, device=self._device)  # type: ignore[no-untyped-call]
            with torch.cuda.stream(queue), torch.cuda.use_mem_pool(pools[slot]), self._as_it_runs():
                made = self.network(self._tensor_at(x, self._input))
                self._tensor_at(y, tuple(made.shape[1:])).copy_(made)

        return enqueue

    @contextlib.contextmanager
    def _as_it_runs(self) -> Iterator[None]:
        with torch.inference_mode(), fused_norms(), batch_norm_as(self._norm_mode), _fastest_convolutions():
            yield

    def _tensor_at(self, address: int, size: tuple[int, ...]) -> Tensor:
        """Device memory of an NHWC tensor (1, C, H, W)."""
        channels, height, width = size
        kind = {torch.float32: "<f4", torch.float16: "<f2", torch.bfloat16: "<u2"}[self._dtype]
        facts = {"shape": (1, height, width, channels), "typestr": kind, "data": (address, False), "version": 3}
        memory = type("Memory", (), {"__cuda_array_interface__": facts})()
        return torch.as_tensor(memory, device=self._device).view(self._dtype).permute(0, 3, 1, 2)


@contextlib.contextmanager
def _fastest_convolutions() -> Iterator[None]:
    """cuDNN tries its algorithms when it first meets a shape: while a pipeline is made, for every size of its own."""
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
