"""Why a plan cannot run here, before TensorRT is asked: each cause has its own line, and the command that mends it."""

from __future__ import annotations

import shlex
from pathlib import Path

from ..errors import DeviceUnavailable, EngineMismatch
from ..manifest import Manifest
from ..norm_act_bodies import DOMAIN, OP, VERSION
from . import driver
from .targets import TENSORRT, TENSORRT_RTX, Target, known_capabilities, show_capability

_KNOWN_PLUGINS = {f"{DOMAIN}::{OP}": VERSION}
_COMPARED = 3  # parts of a version number that must agree


def check(path: Path, manifest: Manifest, target: Target, version: str, device: int) -> None:
    """Raises EngineMismatch where another plan is needed, DeviceUnavailable where the machine lacks something.

    Of a plan without manifest nothing is known; TensorRT itself then says what is wrong.
    """
    _check_gpu(path, manifest, target, version, device)
    if manifest.target:
        _check_version(path, manifest, target, version)
        _check_plugins(path, manifest)
    _check_kernels(path, manifest)


def _check_gpu(path: Path, manifest: Manifest, target: Target, version: str, device: int) -> None:
    here = driver.capability(device)
    if here is None:
        wanted = manifest.target.get("compute_capability", "")
        gpu = f"an NVIDIA GPU of compute capability {wanted}" if wanted else "an NVIDIA GPU"
        raise DeviceUnavailable(
            f"{path}: needs {gpu}, and there is none here ({driver.missing()}); "
            f"translate with the .onnx it was built from{_source(manifest)}"
        )
    built_for = manifest.target.get("compute_capability", "")
    if not manifest.target or show_capability(here) in built_for.split(","):
        return
    why = f"{path}: built for compute capability {built_for}, and {driver.name(device)} has {show_capability(here)}"
    if target is TENSORRT_RTX and here not in known_capabilities(target.load()):
        raise EngineMismatch(
            f"{why}, which {target.name} {version} neither builds nor runs anything for; rebuild it for TensorRT "
            f"({TENSORRT.install}): {rebuild(path, manifest, runtime=TENSORRT.name)}"
        )
    raise EngineMismatch(f"{why}; rebuild it: {rebuild(path, manifest, show_capability(here))}")


def rebuild(
    path: Path, manifest: Manifest, capability: str = "", *, runtime: str = "", without_plugins: bool = False
) -> str:
    """The command that makes the plan anew, for `capability` and `runtime`, or those it was made for."""
    told = manifest.target
    runtime = runtime or told.get("runtime", TENSORRT.name)
    words = ["gantrt export", told.get("source", "ENGINE.onnx"), "-o", shlex.quote(str(path)), "--overwrite"]
    words += ["--target", runtime]
    if runtime != TENSORRT.name:  # which builds on the GPU the plan is for
        words += ["--compute-capability", *(capability or told.get("compute_capability", "")).split(",")]
    words += [told["options"]] if "options" in told else []
    return " ".join(words + (["--no-plugins"] if without_plugins else []))


def _check_version(path: Path, manifest: Manifest, target: Target, version: str) -> None:
    built = manifest.target.get("version", "")
    if built.split(".")[:_COMPARED] != version.split(".")[:_COMPARED]:
        raise EngineMismatch(
            f"{path}: built by {target.name} {built}, and here is {version}; rebuild it: {rebuild(path, manifest)}"
        )


def _check_plugins(path: Path, manifest: Manifest) -> None:
    for plugin in manifest.plugins:
        name, version = plugin["name"], plugin["version"]
        if _KNOWN_PLUGINS.get(name) != version:
            raise EngineMismatch(
                f"{path}: needs the plugin {name} {version}, which this gantrt does not have; upgrade gantrt, "
                f"or rebuild it: {rebuild(path, manifest)}"
            )


def _check_kernels(path: Path, manifest: Manifest) -> None:
    from .. import _core

    if manifest.plugins and not _core.cuda_built():
        raise DeviceUnavailable(
            f"{path}: needs the CUDA kernels of {manifest.plugins[0]['name']}, and this gantrt was built without CUDA; "
            "install it again with GANTRT_CUDA=ON where nvcc is, or rebuild the plan: "
            f"{rebuild(path, manifest, without_plugins=True)}"
        )


def _source(manifest: Manifest) -> str:
    source = manifest.target.get("source", "")
    return f", {source}" if source.endswith(".onnx") else ""
