"""Run by test_plan_api.py: build and run a plan with the real Python bindings of a TensorRT whose library is not here.

Objects of its classes are mocks that know each class's names and no others. So a call that TensorRT has renamed fails.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock, NonCallableMagicMock

import numpy as np
import tensorrt_bindings as bindings
from gantrt.engines import Options
from gantrt.engines import tensorrt as engine_module
from gantrt.plan_file import read_plan_manifest
from gantrt.plans import driver, norm_act, timing_cache
from gantrt.plans.build import Request, build_plan
from gantrt.plans.targets import TENSORRT
from plan_networks import write_tiny


class Paper:
    """The bindings, with mocks where the library would be called."""

    def __init__(self) -> None:
        self.registry = mock(bindings.IPluginRegistry, all_creators=[])
        self.config = mock(bindings.IBuilderConfig)
        self.config.create_timing_cache.return_value = mock(bindings.ITimingCache)
        measured = mock(bindings.ITimingCache)
        measured.serialize.return_value = b"measured"
        self.config.get_timing_cache.return_value = measured
        self.network = mock(bindings.INetworkDefinition, num_layers=1)
        self.network.get_layer.return_value = mock(bindings.ILayer, type=bindings.LayerType.CONVOLUTION)
        self.network.get_layer.return_value.get_output.return_value = mock(bindings.ITensor, dtype=bindings.float32)
        self.network.get_input.return_value = mock(bindings.ITensor, name="input")
        self.profile = mock(bindings.IOptimizationProfile)
        self.engine = mock(bindings.ICudaEngine, num_io_tensors=2)
        self.engine.get_tensor_name.side_effect = ["input", "output"]
        modes = {"input": bindings.TensorIOMode.INPUT, "output": bindings.TensorIOMode.OUTPUT}
        self.engine.get_tensor_mode.side_effect = modes.get
        self.engine.get_tensor_dtype.return_value = bindings.float32
        self.engine.create_execution_context.return_value = mock(bindings.IExecutionContext)

    def __getattr__(self, name: str) -> Any:
        return getattr(bindings, name)

    def Builder(self, logger: Any) -> Any:
        assert isinstance(logger, bindings.ILogger)
        builder = mock(bindings.Builder)
        builder.get_plugin_registry.return_value = self.registry
        builder.create_network.return_value = self.network
        builder.create_builder_config.return_value = self.config
        builder.create_optimization_profile.return_value = self.profile
        builder.build_serialized_network.side_effect = lambda n, c: b"ftrt" + bytes(64) + n.name.encode()
        return builder

    def OnnxParser(self, network: Any, logger: Any) -> Any:
        return mock(bindings.OnnxParser, parse=MagicMock(return_value=True))

    def Runtime(self, logger: Any) -> Any:
        runtime = mock(bindings.Runtime)
        runtime.get_plugin_registry.return_value = self.registry
        runtime.deserialize_cuda_engine.return_value = self.engine
        return runtime


def mock(kind: type, **attributes: Any) -> Any:
    made = NonCallableMagicMock(spec_set=kind)
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def main() -> None:
    assert bindings.__version__.startswith("11.")
    paper = Paper()
    type(TENSORRT).load = lambda self: paper  # type: ignore[method-assign]
    driver.missing, driver.capability, driver.name = lambda: "", lambda index=0: 89, lambda index=0: "paper"
    driver.on_device = lambda index: contextlib.nullcontext()  # type: ignore[assignment]
    driver.Stream = MagicMock()  # type: ignore[misc]
    driver.Buffer = MagicMock()  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as folder:
        builds(paper, Path(folder))
        runs(paper, Path(folder))
    formats(norm_act._creator_class(paper, TENSORRT)().create_plugin("n", [], bindings.TensorRTPhase.BUILD))


def builds(paper: Paper, folder: Path) -> None:
    """Twice, as the second finds the first one's timing cache; then a dynamic one."""
    engine, cache = write_tiny(folder / "tiny.onnx"), folder / "cache"
    for _ in range(2):
        request = Request("tensorrt", timing_cache=str(cache), progress=False)
        build_plan(engine, folder / "tiny.plan", request, overwrite=True)
    assert timing_cache.load(cache) == b"measured"
    paper.config.create_timing_cache.assert_called_with(b"measured")
    assert paper.config.max_aux_streams == 0
    assert isinstance(paper.config.progress_monitor, bindings.IProgressMonitor)
    manifest = read_plan_manifest(folder / "tiny.plan")
    assert manifest is not None
    assert manifest.target["runtime"] == "tensorrt"
    assert manifest.target["compute_capability"] == "8.9"
    creator = paper.registry.register_creator.call_args.args[0]
    assert (creator.name, creator.plugin_namespace, creator.plugin_version) == ("NormAct", "gantrt", "1")

    sizes = ((8, 8), (16, 24), (32, 32))
    request = Request("tensorrt", span=sizes, timing_cache="", plugins=False, progress=False)
    build_plan(write_tiny(folder / "dynamic.onnx", None), folder / "dynamic.plan", request)
    paper.profile.set_shape.assert_called_once_with("input", *[(1, 3, *size) for size in sizes])


def runs(paper: Paper, folder: Path) -> None:
    manifest = read_plan_manifest(folder / "dynamic.plan")
    assert manifest is not None
    engine = engine_module.open(folder / "dynamic.plan", manifest, Options("cuda"))
    context = paper.engine.create_execution_context.return_value
    context.set_input_shape.assert_called_once_with("input", (1, 3, 16, 24))  # for its test of itself
    context.reset_mock()
    x = np.zeros((1, 3, 16, 24), np.float32)
    engine.run(x, x.copy())
    assert [call.args[0] for call in context.set_tensor_address.call_args_list] == ["input", "output"]
    context.execute_async_v3.assert_called_once()
    assert engine._dtype("input") == "float32"
    engine.close()


def formats(plugin: Any) -> None:
    """HWC for float32, HWC8 for halves, planes where eight do not divide the channels; parameters are float32."""
    kinds = bindings.TensorFormat

    def takes(dtype: Any, channels: int) -> list[str]:
        found = []
        for kind in kinds.__members__.values():
            desc = SimpleNamespace(dims=(1, channels, 8, 8), type=dtype, format=kind)
            if plugin.supports_format_combination(0, [SimpleNamespace(desc=desc)], 1):
                found.append(kind.name)
        return found

    assert takes(bindings.float32, 12) == ["HWC"]
    assert takes(bindings.float16, 64) == takes(bindings.bfloat16, 64) == ["HWC8"]
    assert takes(bindings.float16, 12) == ["LINEAR"]
    assert takes(bindings.int8, 64) == []


if __name__ == "__main__":
    main()
    sys.exit(0)
