"""NormAct as a TensorRT plugin, in Python: `enqueue` hands the pointers to our CUDA kernels and does nothing else.

It takes and makes channels-last tensors, which the convolutions beside it want, so that nothing stands between them.
A CUDA graph captures the kernels, not this code: a replayed plan never enters Python.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..norm_act_bodies import DOMAIN, OP, VERSION
from .targets import Target

log = logging.getLogger("gantrt")

_GROUP = 8  # channels that HWC8 keeps together


@dataclass(frozen=True)
class Attributes:
    """What a node says. Its inputs are x, scale, shift, rho if it is `mixed`, and the residual if there is one."""

    eps: float = 1e-5
    slope: float = 1.0
    unbiased: int = 0
    pad: int = 0
    rpad: int = 0
    mixed: int = 0

    @classmethod
    def of(cls, plugin_fields: Iterable[Any]) -> Attributes:
        """From TensorRT's PluginFields; those we do not know are none of ours."""
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{f.name: np.ravel(f.data)[0].item() for f in plugin_fields if f.name in known})


def register(trt: Any, registry: Any, target: Target) -> None:
    """Make NormAct known to a plugin registry of `trt`: a builder's, a runtime's or the process's own."""
    if not any((creator.name, creator.plugin_namespace) == (OP, DOMAIN) for creator in registry.all_creators):
        creator = _creator_class(trt, target)()
        _kept.append(creator)  # a registry does not own what is written in Python
        registry.register_creator(creator, DOMAIN)


_kept: list[Any] = []


def _fields(trt: Any, attributes: Attributes) -> Any:
    kinds = {float: (np.float32, trt.PluginFieldType.FLOAT32), int: (np.int32, trt.PluginFieldType.INT32)}
    made = []
    for name, value in dataclasses.asdict(attributes).items():
        dtype, kind = kinds[type(value)]
        made.append(trt.PluginField(name, np.array([value], dtype), kind))
    return trt.PluginFieldCollection(made)


def _creator_class(trt: Any, target: Target) -> type[Any]:
    plugin_class = _plugin_class(trt, target)

    class NormActCreator(trt.IPluginCreatorV3One):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IPluginCreatorV3One.__init__(self)
            self.name, self.plugin_namespace, self.plugin_version = OP, DOMAIN, VERSION
            self.field_names = _fields(trt, Attributes())

        def create_plugin(self, name: str, fields: Any, phase: Any) -> Any:
            return plugin_class(Attributes.of(fields))

    return NormActCreator


def _plugin_class(trt: Any, target: Target) -> type[Any]:
    names = {trt.float32: "float32", trt.float16: "float16", trt.bfloat16: "bfloat16"}
    linear = trt.TensorFormat.LINEAR

    def layout_of(desc: Any) -> Any:
        """The one format a picture may have. Offered a choice, a builder that cannot measure takes planes."""
        wanted = target.channels_last[names[desc.type]]
        return linear if wanted == "HWC8" and desc.dims[1] % _GROUP else getattr(trt.TensorFormat, wanted)

    class NormAct(trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime):  # type: ignore[misc]
        def __init__(self, attributes: Attributes) -> None:
            for base in (trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime):
                base.__init__(self)
            self.plugin_name, self.plugin_namespace, self.plugin_version = OP, DOMAIN, VERSION
            self.num_outputs, self.timing_cache_id = 1, ""
            self.attributes = attributes

        def get_capability_interface(self, kind: Any) -> Any:
            return self

        def clone(self) -> Any:
            return NormAct(self.attributes)

        # While a plan is built

        def get_output_data_types(self, types: Sequence[Any]) -> list[Any]:
            return [types[0]]

        def get_output_shapes(self, inputs: Sequence[Any], shape_inputs: Sequence[Any], exprs: Any) -> list[Any]:
            y = trt.DimsExprs(inputs[0])
            for axis in (2, 3):
                border = exprs.constant(2 * self.attributes.pad)
                y[axis] = exprs.operation(trt.DimensionOperation.SUM, inputs[0][axis], border)
            return [y]

        def supports_format_combination(self, position: int, tensors: Sequence[Any], num_inputs: int) -> bool:
            desc, x = tensors[position].desc, tensors[0].desc
            if len(desc.dims) != 4:  # scale, shift, rho
                return bool(desc.type == trt.float32 and desc.format == linear)
            return bool(desc.type in names and desc.type == x.type and desc.format == layout_of(desc))

        def get_workspace_size(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
            from .. import _core

            batch, channels, *_ = inputs[0].max
            return _core.norm_act_workspace_bound(batch, channels)

        def configure_plugin(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
            """Nothing to choose."""

        # While it runs

        def get_fields_to_serialize(self) -> Any:
            return _fields(trt, self.attributes)

        def on_shape_change(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
            """Nothing is kept from one size to the next."""

        def set_tactic(self, tactic: int) -> None:
            """There is one."""

        def attach_to_context(self, context: Any) -> Any:
            return self.clone()

        def enqueue(
            self,
            inputs: Sequence[Any],
            outputs: Sequence[Any],
            input_pointers: Sequence[int],
            output_pointers: Sequence[int],
            workspace: int,
            stream: int,
        ) -> int:
            """Launch the kernels on `stream`. Nothing is allocated and nothing waits: the stream may be captured."""
            from .. import _core

            a, x = self.attributes, inputs[0]
            batch, channels, height, width = x.dims
            rest = list(input_pointers[3:])
            try:
                _core.norm_act_launch(
                    input_pointers[0],
                    scale=input_pointers[1],
                    shift=input_pointers[2],
                    rho=rest.pop(0) if a.mixed else 0,
                    residual=rest.pop(0) if rest else 0,
                    y=output_pointers[0],
                    shape=(batch, channels, height, width),
                    per_sample=len(inputs[1].dims) == 2,
                    dtype=names[x.type],
                    layout="nchw" if x.format == linear else "nhwc",
                    eps=a.eps,
                    slope=a.slope,
                    unbiased=bool(a.unbiased),
                    pad=a.pad,
                    rpad=a.rpad,
                    workspace=workspace,
                    workspace_bytes=_core.norm_act_workspace_bound(batch, channels),
                    stream=stream,
                )
            except Exception as error:  # none may cross TensorRT's C++
                log.error("%s: %s", OP, error)
                return 1
            return 0

    return NormAct
