"""TensorRT-RTX: plans that were built anywhere, for the GPUs their manifest names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..manifest import Manifest
from ..plans.targets import TENSORRT_RTX as TARGET
from . import Options

if TYPE_CHECKING:
    from ..plans.engine import PlanEngine

SUFFIXES = (".plan",)
DEVICES = ("cuda",)
PRIORITY = 30


def missing() -> str | None:
    return TARGET.missing()


def open(path: Path, manifest: Manifest, options: Options) -> PlanEngine:
    from ..plans.engine import PlanEngine

    return PlanEngine(TARGET, path, manifest, options)
