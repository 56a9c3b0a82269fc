"""What bench/engines.py --device cuda lets take turns: our plans, plans as others build them, and the tutorials' loop.

That loop is the `tensorrt` wheel with PyCUDA: one stream, synchronous copies from pageable memory, NumPy before and
after. It runs the plan without plugins, which is what a user without our kernels has.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import gantrt
import numpy as np
import torch
from gantrt.plans.build import Request as PlanRequest
from gantrt.plans.build import build_plan
from gantrt.plans.targets import TENSORRT, default_target
from gantrt_training.export import Request
from gantrt_training.nets.norm import batch_norm_as
from gantrt_training.peers import Network
from gantrt_training.realtime import Realtime
from networks import export, generator
from numpy.typing import NDArray

Frame = NDArray[np.uint8]
Call = Callable[[], Any]


def contestants(family: str, stack: ExitStack, scratch: Path) -> tuple[dict[str, Call], dict[str, str]]:
    """(name to a call that translates one frame from and to host memory, name to why it takes no part)."""
    source = generator(family)
    size = source.config.size
    frame = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    engine = export(family, scratch / "engine.onnx", Request(samples=1, precision="fp16"))
    calls: dict[str, Call] = {}
    missing: dict[str, str] = {}
    for name, plugins in (("gantrt plan", True), ("gantrt plan, no plugins", False)):
        try:
            plan = scratch / f"{'with' if plugins else 'without'}.plan"
            build_plan(engine, plan, PlanRequest(target=default_target(), plugins=plugins, progress=False))
            translator = stack.enter_context(gantrt.load(plan, device="cuda"))
            out = np.empty_like(frame)
            calls[name] = lambda t=translator, out=out: t(frame, out)
        except gantrt.GantrtError as error:
            missing[name] = str(error)
    try:
        calls["tensorrt + pycuda, by hand"] = tutorial(scratch / "without.plan", frame)
    except (ImportError, RuntimeError, OSError) as error:
        missing["tensorrt + pycuda, by hand"] = str(error)
    realtime = Realtime(source.family, source.generator, (3, size, size), "fp16", source.norm_mode, 0, 1, "rgb")
    stack.callback(realtime.close)
    result = np.empty_like(frame)
    calls["gantrt, torch alone"] = lambda: realtime(frame, result)
    calls["torch eager, fp16"] = torch_by_hand(Network(source.family, source.generator, source.norm_mode), frame)
    return calls, missing


def tutorial(plan: Path, frame: Frame) -> Call:
    """Raises ImportError without TensorRT or PyCUDA, RuntimeError for a plan TensorRT cannot read."""
    if TENSORRT.missing():
        raise ImportError(TENSORRT.missing())
    import pycuda.autoprimaryctx
    import pycuda.driver as cuda

    trt = TENSORRT.load()
    engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(plan.read_bytes())
    if engine is None:
        raise RuntimeError(f"{plan}: TensorRT cannot read it")
    context, stream = engine.create_execution_context(), cuda.Stream()
    names = [engine.get_tensor_name(i) for i in range(2)]
    shapes = [tuple(engine.get_tensor_shape(name)) for name in names]
    host = [np.empty(shape, np.float32) for shape in shapes]
    device = [cuda.mem_alloc(array.nbytes) for array in host]
    for name, memory in zip(names, device, strict=True):
        context.set_tensor_address(name, int(memory))
    height, width = shapes[0][2:]

    def call() -> Frame:
        small = cv2.resize(frame, (width, height)) if frame.shape[:2] != (height, width) else frame
        x = np.ascontiguousarray((small.astype(np.float32) / 127.5 - 1).transpose(2, 0, 1)[None])
        cuda.memcpy_htod(device[0], x)
        context.execute_async_v3(stream.handle)
        stream.synchronize()
        cuda.memcpy_dtoh(host[1], device[1])
        y = ((host[1][0].transpose(1, 2, 0) + 1) * 127.5).clip(0, 255).astype(np.uint8)
        return cv2.resize(y, frame.shape[1::-1]) if y.shape != frame.shape else y

    call.keeps = (engine, context, pycuda.autoprimaryctx)  # type: ignore[attr-defined]
    return call


def torch_by_hand(network: Network, frame: Frame) -> Call:
    """Eager, channels last, half precision: what one writes first."""
    network = network.cuda().half().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def call() -> Frame:
        with torch.inference_mode(), batch_norm_as(network.norm_mode):
            x = torch.from_numpy(frame).cuda().permute(2, 0, 1)[None].half() / 127.5 - 1
            y = network(x.contiguous(memory_format=torch.channels_last))[0]
            shown = ((y + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
            return shown.permute(1, 2, 0).contiguous().cpu().numpy()

    return call
