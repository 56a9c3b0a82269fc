"""Whether an error of some library means that memory ran out: each has a word of its own for it."""

from __future__ import annotations

import re

_SAID = re.compile(
    r"out of memory|bad[_ ]alloc|(can ?not|could not|failed to|unable to) allocate|insufficient memory|"
    r"alloc\w* failed|OutOfMemory",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Of Python and NumPy, OpenCV, OpenVINO, ONNX Runtime, PyTorch, CUDA and TensorRT."""
    return isinstance(error, MemoryError) or bool(_SAID.search(f"{type(error).__name__}: {error}"))
