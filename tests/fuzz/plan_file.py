"""The manifest and the seal of a .plan."""

from __future__ import annotations

from dataclasses import replace

from gantrt.errors import EngineCorrupt, EngineMismatch
from gantrt.manifest import Manifest
from gantrt.plan_file import UNSEALED, read_plan_manifest, seal
from gantrt.summary import summary

from . import manifest as manifest_target
from . import scratch_file

ALLOWED = (EngineCorrupt, EngineMismatch)

_TARGET = {"runtime": "tensorrt", "version": "11.4.0", "compute_capability": "8.9", "crc32": UNSEALED}
_TEXT = replace(Manifest(), target=_TARGET).to_json().encode()


def seeds() -> list[bytes]:
    plan = b"ftrt" + bytes(60) + _TEXT + bytes(range(256))
    path = scratch_file("seed.plan", plan)
    seal(path)
    return [path.read_bytes(), plan, b"ptrt" + bytes(80), b"ftrt" + bytes(60) + b'{"batch":' * 30]


def run(data: bytes) -> None:
    """The bytes as a plan; where they hold a manifest, sealed anew, so that what is behind the seal is reached, too."""
    path = scratch_file("engine.plan", data)
    try:
        seal(path)
    except (EngineCorrupt, ValueError):  # nothing to seal, or nothing at all
        path.write_bytes(data)
    manifest = read_plan_manifest(path)
    summary(path)
    if manifest is not None:
        manifest_target.check(manifest)
