"""What a user would write with each library instead of gantrt: the contestants of `gantrt bench --against`.

Each takes an engine file and the network's input, and returns a call that makes the network's output.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .engine_file import inlined
from .engines import load_engine
from .errors import DeviceUnavailable, EngineMismatch, UsageError
from .telemetry import import_silent

Once = Callable[[], NDArray[np.float32]]

TORCH = ("torch", "torch-bf16", "torch-compile")  # made by gantrt_training.peers, from the checkpoint


def onnxruntime_peer(path: Path, x: NDArray[np.float32], threads: int | None) -> Once:
    """A session with its defaults, which are all cores."""
    onnxruntime = import_silent("onnxruntime")
    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(inlined(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: x})[0]


def openvino_peer(path: Path, x: NDArray[np.float32], threads: int | None) -> Once:
    """As OpenVINO's tutorials have it, with the hint for latency: bfloat16 where the CPU has it."""
    return _openvino(path, x, threads, {"PERFORMANCE_HINT": "LATENCY"})


def openvino_fp32_peer(path: Path, x: NDArray[np.float32], threads: int | None) -> Once:
    return _openvino(path, x, threads, {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"})


def _openvino(path: Path, x: NDArray[np.float32], threads: int | None, settings: dict[str, Any]) -> Once:
    from .engines.openvino import core

    if threads is not None:
        settings = settings | {"INFERENCE_NUM_THREADS": threads}
    network = core().read_model(inlined(path))
    if network.is_dynamic():
        network.reshape(list(x.shape))
    compiled = core().compile_model(network, "CPU", settings)
    return lambda: compiled(x)[0]


PEERS = {"onnxruntime": onnxruntime_peer, "openvino": openvino_peer, "openvino-fp32": openvino_fp32_peer}


def peer_names(text: str) -> list[str]:
    """The names in a comma-separated list, each known, and installed unless it is of torch."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name in TORCH:
            continue
        if name not in PEERS:
            raise UsageError(f"--against {name}: there are {', '.join((*PEERS, *TORCH))}")
        if missing := load_engine(name.partition("-")[0]).missing():
            raise DeviceUnavailable(f"--against {name}: {missing}")
    return names


def started(name: str, path: Path, make: Callable[[], Once]) -> Once:
    """The contestant, when it has made one picture; EngineMismatch with its library's reason if it cannot."""
    try:
        once = make()
        once()
    except Exception as error:  # whatever another library says when it does not run this network
        gist = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise EngineMismatch(f"--against {name}: it does not run {path} ({gist})") from error
    return once
