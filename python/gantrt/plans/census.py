"""The kernels a TensorRT-RTX plan launches, in order, read from the plan: no GPU, and no TensorRT.

A plan holds the text of its program: `descriptors { tensor={ name=... type=half } ... }`, then `main { ... }`, one
statement per launch. NVIDIA documents none of it; this is what version 1.7 writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import EngineCorrupt

# What the program's statements do that launch a kernel.
_CONVOLUTIONS = ("corrltn", "deconvolution")
_LAUNCHES = (
    *_CONVOLUTIONS,
    "function",
    "runtime_function",
    "runtime_fusion",
    "custom_layer",
    "fully_connected",
    "gemm",
)
_PROGRAM = re.compile(rb"\ndescriptors \{\n(.*?)\n\}\nmain \{\n(.*?)\n\}\n", re.DOTALL)
_TENSOR = re.compile(rb'^  tensor=\{ .*?name="([^"]+)".*? type=(\w+) \}', re.MULTILINE)
_STATEMENT = re.compile(rb'^  ([a-z_]+)=\{ name="?([^" ]+)"?(.*)', re.MULTILINE)
_INPUT = re.compile(rb'input(?:_args)?=\{ ?"([^"]+)"')
_OUTPUT = re.compile(rb'output(?:_args)?=\{ ?"([^"]+)"')
_TYPES = {"float": "fp32", "half": "fp16", "bfloat16": "bf16", "bf16": "bf16", "int8": "int8"}


@dataclass(frozen=True)
class Launch:
    """One kernel: what kind of statement, its name, and the types of what it writes and of what it reads first."""

    kind: str
    name: str
    writes: str  # "fp32", "fp16", ...; "" if the program does not say
    reads: str = ""

    @property
    def is_convolution(self) -> bool:
        return self.kind in _CONVOLUTIONS or (self.kind == "runtime_fusion" and "Corr" in self.name)

    @property
    def is_transposed_convolution(self) -> bool:
        return self.kind == "deconvolution"

    @property
    def is_plugin(self) -> bool:
        return self.kind == "custom_layer"

    @property
    def transposes(self) -> bool:
        return self.name.startswith("__myl_") and "Tran" in self.name


def census(plan: bytes | Path) -> list[Launch]:
    """The launches of a TensorRT-RTX plan, in order. Raises EngineCorrupt if it has no program we can read."""
    data = plan.read_bytes() if isinstance(plan, Path) else plan
    found = _PROGRAM.search(data)
    if not found:
        raise EngineCorrupt("census: the plan has no program in it; is it TensorRT-RTX's?")
    descriptors, main = found.groups()
    types = {name: _TYPES.get(kind.decode(), kind.decode()) for name, kind in _TENSOR.findall(descriptors)}
    return list(_launches(main, types))


def _launches(main: bytes, types: dict[bytes, str]) -> Iterator[Launch]:
    for kind, name, rest in _STATEMENT.findall(main):
        if kind.decode() in _LAUNCHES:
            made, read = (
                types.get(found[1], "") if found else "" for found in (_OUTPUT.search(rest), _INPUT.search(rest))
            )
            yield Launch(kind.decode(), name.decode(), made, read)
