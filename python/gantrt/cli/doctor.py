"""What this machine can run, which library was loaded from where, and the command that fixes each gap."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

HELP = "say what this machine can run, from which libraries, and how to fix what it cannot"

# Import name -> (name on the package index, what needs it, the command that installs it).
_LIBRARIES = {
    "numpy": ("numpy", "everything", "pip install numpy"),
    "cv2": ("opencv-python", "pictures, cameras", "pip install opencv-python"),
    "av": ("av", "videos", "pip install av"),
    "onnx": ("onnx", "engine files", "pip install onnx"),
    "openvino": ("openvino", "translating on a CPU", "pip install openvino"),
    "onnxruntime": ("onnxruntime", "bench --against, export's parity check", "pip install 'gantrt[bench]'"),
    "matplotlib": ("matplotlib", "bench --plot", "pip install 'gantrt[bench]'"),
    "fastapi": ("fastapi", "serve", "pip install 'gantrt[serve]'"),
    "torch": ("torch", "train, import, export", "pip install 'gantrt[train]'"),
    "tensorrt": ("tensorrt", "plans for an NVIDIA GPU", "pip install 'gantrt[tensorrt]'"),
    "tensorrt_rtx": ("tensorrt-rtx-cu13", "plans for an NVIDIA RTX GPU", "pip install 'gantrt[rtx]'"),
}
_CORE_RUNTIME = ("numpy", "cv2", "av", "onnx", "openvino")  # what `pip install gantrt` brings, and cannot do without
_CPU_FEATURES = (
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_bf16",
    "amx_int8",
)  # as /proc/cpuinfo says
_BROKEN = 4


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    name: str
    ok: bool
    detail: str  # version and place, or why not
    fix: str = ""  # the command that closes the gap


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")


def run(args: argparse.Namespace) -> int:
    core = _core()
    libraries = [_library(name, loaded=name in _CORE_RUNTIME) for name in _LIBRARIES]
    sections = {"machine": _machine(), "gpu": _gpu(), "libraries": [core, *libraries], "engines": _engines()}
    broken = [finding for finding in (core, *libraries) if not finding.ok and finding.name in (*_CORE_RUNTIME, "_core")]
    if args.json:
        content = {title: [dataclasses.asdict(finding) for finding in found] for title, found in sections.items()}
        print(json.dumps({"ok": not broken, **content}, indent=2))
    else:
        print("\n".join(_lines(sections)))
        verdict = f"broken: {', '.join(finding.name for finding in broken)}" if broken else "sound"
        print(f"the runtime is {verdict}")
    return _BROKEN if broken else 0


def _lines(sections: dict[str, list[Finding]]) -> list[str]:
    lines = []
    for title, found in sections.items():
        lines.append(title)
        for finding in found:
            lines.append(f"  {'+' if finding.ok else '-'} {finding.name:<14} {finding.detail}")
            if finding.fix:
                lines.append(f"    {'':<14} fix: {finding.fix}")
    return lines


def _machine() -> list[Finding]:
    from .. import __version__

    return [
        Finding("gantrt", True, f"{__version__}  {Path(__file__).parents[1]}"),
        Finding("python", True, f"{platform.python_version()}  {platform.platform()}"),
        Finding("cpu", True, f"{_cpu_name()}, {os.cpu_count()} threads"),
        _cpu_features(),
        _threads(),
        _cache(),
    ]


def _threads() -> Finding:
    from ..threads import ENV, cpu_quota, numa_nodes, thread_limit, usable_cpus

    limit, quota = thread_limit(), cpu_quota()
    said = f"a quota of {quota:g} CPUs" if quota is not None else "no quota"
    nodes = f", {numa_nodes()} memory nodes" if numa_nodes() > 1 else ""
    return Finding(
        "threads",
        True,
        f"{limit or usable_cpus()} for a network ({usable_cpus()} CPUs, {said}{nodes}; {ENV} overrides)",
    )


def _cache() -> Finding:
    from ..model_cache import ENV_FOLDER, ModelCache

    cache = ModelCache.open(None)
    if cache is None:
        return Finding("cache", True, f"none: every start compiles its network ({ENV_FOLDER} names a folder)")
    count, used = cache.size()
    return Finding("cache", True, f"{count} compiled models, {used >> 20} MB of {cache.limit >> 20}, in {cache.folder}")


def _cpu_name() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpu_features() -> Finding:
    """What decides how fast a CPU translates: bf16 doubles its rate, VNNI and AMX int8 make int8 worth it."""
    flags = set(_cpuinfo("flags").split())
    if not flags:
        return Finding("cpu features", True, "unknown: this system has no /proc/cpuinfo")
    here = [feature for feature in _CPU_FEATURES if feature in flags]
    has_bf16 = bool({"avx512_bf16", "amx_bf16"} & flags)
    bf16 = "networks run in bf16, or as --precision says" if has_bf16 else "no bf16: networks run in fp32 or int8"
    return Finding("cpu features", "avx2" in flags, f"{' '.join(here) or 'none that matter'} ({bf16})")


def _cpuinfo(key: str) -> str:
    """The first value of `key` in /proc/cpuinfo; "" where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key), "")


def _gpu() -> list[Finding]:
    """Asked of nvidia-smi, so that no CUDA library is loaded."""
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return [Finding("nvidia", False, "no nvidia-smi here: no NVIDIA GPU, or no driver; engines run on the CPU")]
    query = [smi, "--query-gpu=name,compute_cap,driver_version,memory.total", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [Finding("nvidia", False, f"{smi} does not answer ({error})", "reinstall the NVIDIA driver")]
    rows = [line.strip() for line in answer.stdout.splitlines() if line.strip()]
    if answer.returncode or not rows:
        reason = (answer.stdout + answer.stderr).strip().splitlines()
        said = reason[0] if reason else "it lists no GPU"
        return [Finding("nvidia", False, f"{smi}: {said}", "reinstall the NVIDIA driver")]
    return [Finding(f"cuda:{i}", True, row) for i, row in enumerate(rows)]


def _core() -> Finding:
    """Our own extension: is it built, does it load, does it know CUDA?"""
    try:
        core = importlib.import_module("gantrt._core")
    except ImportError as error:
        return Finding(
            "_core", False, f"gantrt's C++ extension does not load: {error}", "pip install --force-reinstall gantrt"
        )
    kernels = f"CPU kernels for {' '.join(core.cpu_features()) or 'any CPU'}"
    cuda = f"CUDA kernels for {core.cuda_architectures()}" if core.cuda_built() else "no CUDA kernels"
    return Finding("_core", True, f"{kernels}, {cuda}  {core.__file__}")


def _library(name: str, *, loaded: bool) -> Finding:
    """Where a library lies and its version. Only what the runtime cannot do without is really loaded: torch is not."""
    package, purpose, install = _LIBRARIES[name]
    spec = importlib.util.find_spec(name)
    if spec is None:
        return Finding(name, False, f"not installed; needed for {purpose}", install)
    if loaded:
        try:
            importlib.import_module(name)
        except ImportError as error:
            return Finding(name, False, f"does not load: {error}", f"{install} --force-reinstall")
    return Finding(name, True, f"{_version(package, name)}  {spec.origin}")


def _version(package: str, module: str) -> str:
    """Of the package as it is usually called, or of whichever other one brings the module (opencv-python-headless)."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    owners = importlib.metadata.packages_distributions().get(module, [])
    return importlib.metadata.version(owners[0]) if owners else "unknown version"


def _engines() -> list[Finding]:
    from ..engines import list_engines, load_engine

    found = []
    for name in list_engines():
        module = load_engine(name)
        what = f"{', '.join(module.SUFFIXES)} on {', '.join(module.DEVICES)}"
        missing, _, fix = (module.missing() or "").partition("; ")
        found.append(Finding(name, not missing, f"{what}{': ' if missing else ''}{missing}", fix))
    return found
