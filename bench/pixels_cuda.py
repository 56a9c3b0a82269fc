"""Frames to tensors and back on a GPU: our kernels, torch's way of saying the same, and a copy of the same bytes.

    python bench/pixels_cuda.py [--rounds 30]

Frames lie on the GPU; a call's time is that of a CUDA graph of many calls divided by their number. `copy` moves the
frame's bytes from one place of the GPU's memory to another. Writes bench/results/pixels_<gpu>.json.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from gantrt import _core
from gpu_machine import about, captured, interleaved
from kernels import RESULTS
from torch import Tensor

FRAMES = {"720p": (720, 1280), "1080p": (1080, 1920), "2160p": (2160, 3840)}
SIDE = 256  # of the tensor
CALLS = 50  # in a graph


def to_tensor_works(frame: Tensor) -> dict[str, Callable[[], object]]:
    x = torch.empty((1, 3, SIDE, SIDE), device="cuda", dtype=torch.float16, memory_format=torch.channels_last)
    side = SIDE + 6
    padded = torch.empty((1, 3, side, side), device="cuda", dtype=torch.float16, memory_format=torch.channels_last)

    def by_torch(antialias: bool) -> Callable[[], object]:
        def work() -> Tensor:
            planes = frame.permute(2, 0, 1)[None].half() / 127.5 - 1
            return F.interpolate(planes, (SIDE, SIDE), mode="bilinear", antialias=antialias)

        return work

    return {
        "ours, area": lambda: _core.frame_to_tensor(frame, x, resize="area"),
        "ours, area, padded by 3": lambda: _core.frame_to_tensor(frame, padded, resize="area", pad=3),
        "ours, bilinear": lambda: _core.frame_to_tensor(frame, x, resize="bilinear"),
        "torch, antialiased": by_torch(True),
        "torch, bilinear": by_torch(False),
        "copy": copier(frame),
    }


def to_frame_works(frame: Tensor) -> dict[str, Callable[[], object]]:
    y = (torch.rand((1, 3, SIDE, SIDE), device="cuda") * 2 - 1).half().contiguous(memory_format=torch.channels_last)
    planes = y.contiguous()
    out = torch.empty_like(frame)

    def by_torch() -> Tensor:
        large = F.interpolate(y, tuple(frame.shape[:2]), mode="bilinear")
        return ((large + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)[0].permute(1, 2, 0).contiguous()

    return {
        "ours, NHWC": lambda: _core.tensor_to_frame(y, out),
        "ours, NHWC, tanh": lambda: _core.tensor_to_frame(y, out, tanh=True),
        "ours, NCHW": lambda: _core.tensor_to_frame(planes, out),
        "torch, bilinear": by_torch,
        "copy": copier(frame),
    }


def copier(frame: Tensor) -> Callable[[], object]:
    target = torch.empty_like(frame)
    return lambda: target.copy_(frame)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with torch.inference_mode():
        for name, size in FRAMES.items():
            frame = torch.randint(0, 256, (*size, 3), device="cuda", dtype=torch.uint8)
            for way, works in (("to tensor", to_tensor_works(frame)), ("to frame", to_frame_works(frame))):
                replays = {who: captured(work, CALLS).replay for who, work in works.items()}
                times = interleaved(replays, args.rounds, CALLS)
                rows.append({"frame": name, "way": way, "tensor": [1, 3, SIDE, SIDE], "dtype": "float16", "us": times})
                print(f"{name:6} {way:10}", *(f"{who}: {t['median_us']}" for who, t in times.items()), sep=" | ")
    gpu = re.sub(r"\W+", "_", torch.cuda.get_device_name()).lower()
    path = RESULTS / f"pixels_{gpu}.json"
    report = about() | {"what": f"microseconds of one call, in a CUDA graph of {CALLS}", "rows": rows}
    path.write_text(json.dumps(report, indent=2) + "\n")
    print(path)


if __name__ == "__main__":
    main()
