"""TensorRT: plans that were built on the GPU they are for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..manifest import Manifest
from ..plans.targets import TENSORRT as TARGET
from . import Options

if TYPE_CHECKING:
    from ..plans.engine import PlanEngine

SUFFIXES = (".plan",)
DEVICES = ("cuda",)
PRIORITY = 40


def missing() -> str | None:
    return TARGET.missing()


def open(path: Path, manifest: Manifest, options: Options) -> PlanEngine:
    from ..plans.engine import PlanEngine

    return PlanEngine(TARGET, path, manifest, options)
