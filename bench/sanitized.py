"""Small shapes through every CUDA kernel, for compute-sanitizer: memcheck, racecheck, initcheck.

    compute-sanitizer --tool racecheck python bench/sanitized.py

CuPy makes the arrays where it is installed, torch else; torch's allocator hides errors inside its own blocks.
"""

from __future__ import annotations

import itertools

import numpy as np
from gantrt import _core, norm_act


def arrays() -> tuple[object, object]:
    """(to the GPU, wait)."""
    try:
        import cupy

        cupy.cuda.set_allocator(None)  # each array its own allocation
        return cupy.asarray, cupy.cuda.runtime.deviceSynchronize
    except ImportError:
        import torch

        return lambda x: torch.from_numpy(x).cuda(), torch.cuda.synchronize


def main() -> None:
    to_gpu, wait = arrays()
    rng = np.random.default_rng(0)
    ran, refused = 0, 0
    shapes = ((1, 8, 8, 8), (2, 16, 7, 9), (1, 3, 5, 4), (1, 8, 40, 33), (1, 40, 4, 4))
    for shape, layout, mode, mixed, pad in itertools.product(
        shapes, ("nchw", "nhwc"), ("cluster", "cooperative", "two_kernels"), (False, True), (0, 3)
    ):
        n, c, h, w = shape
        for dtype in (np.float32, np.float16):
            lies = shape if layout == "nchw" else (n, h, w, c)
            x = to_gpu(rng.standard_normal(lies).astype(dtype))
            rho = to_gpu(rng.random(c, np.float32)) if mixed else None
            result = (n, c, h + 2 * pad, w + 2 * pad) if layout == "nchw" else (n, h + 2 * pad, w + 2 * pad, c)
            out = to_gpu(np.zeros(result, dtype))
            try:
                norm_act(x, rho=rho, residual=x, act="relu", pad=pad, layout=layout, mode=mode, out=out)
                ran += 1
            except ValueError:
                refused += 1
    # Tensors smaller and larger than their frame, whose rows are words or not: each kernel of the pixels'.
    for frame_size, size, color, how in itertools.product(
        ((17, 23), (24, 32), (75, 176)), ((5, 7), (40, 30)), ("rgb", "bgr"), ("area", "bilinear")
    ):
        for dtype, pad in ((np.float32, 0), (np.float16, 2)):
            frame = to_gpu(rng.integers(0, 256, (*frame_size, 3), np.uint8))
            tensor = to_gpu(np.zeros((1, 3, size[0] + 2 * pad, size[1] + 2 * pad), dtype))
            _core.frame_to_tensor(frame, tensor, color=color, resize=how, pad=pad)
            _core.tensor_to_frame(tensor, frame, color=color, resize=how, crop=pad, tanh=pad > 0)
            ran += 2
    wait()
    print(f"{ran} launches, {refused} refused by shape or GPU")


if __name__ == "__main__":
    main()
