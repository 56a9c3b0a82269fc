"""From torch to a graph: a generator as it is tested, nodes named after modules, rewritten, in its precision."""

from __future__ import annotations

import ast
import contextlib
import io
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from gantrt import __version__
from gantrt.engine_file import norm_act_nodes
from gantrt.errors import BuildFailed
from gantrt.manifest import Direction, Manifest
from onnx import ModelProto, numpy_helper
from torch import Tensor, nn

from .family import Family
from .half import retype
from .nets.norm import NormMode, batch_norm_as
from .rewrites import rewrite

log = logging.getLogger("gantrt")

_OPSET = 18
_OPSET_BF16 = 22  # the first whose convolutions take bfloat16
_LARGEST = 8192  # height and width a dynamic engine is traced for
_PROTOBUF_LIMIT = 2**31

Transform = Callable[[ModelProto], object]  # changes a traced graph in place


@dataclass(frozen=True)
class Source:
    """A generator on the CPU, and where it comes from."""

    family: Family
    config: Any
    generator: nn.Module
    direction: Direction = "a2b"
    norm_mode: NormMode = "running"  # of its BatchNorms, unless the request says otherwise
    sha256: str = ""
    swap: bool = False  # the data it was trained with had A and B exchanged

    @property
    def network(self) -> str:
        return self.family.generators[self.direction]

    @property
    def channels(self) -> int:
        return int(self.config.channels_a if self.direction == "a2b" else self.config.channels_b)

    @property
    def made_channels(self) -> int:
        return int(self.config.channels_b if self.direction == "a2b" else self.config.channels_a)


def graph_of(source: Source, manifest: Manifest, *, rewrites: bool = True) -> ModelProto:
    """The graph that goes into an engine file; of int8, the one in float32 that is quantised then.

    `rewrites` are the exact ones of rewrites/. Raises BuildFailed for a network that cannot be traced, does not fit
    into a file, or would lose its picture in a norm of single pixels.
    """
    with as_tested(source.generator, manifest.norm_mode):
        model = _traced(source, manifest)
    for transform in _transforms(manifest, rewrites):
        transform(model)
    return model


@contextlib.contextmanager
def as_tested(generator: nn.Module, norm_mode: str) -> Iterator[None]:
    """Within this the generator works as it is tested: no dropout, no gradients, BatchNorm by `norm_mode`."""
    training = generator.training
    generator.eval()
    try:
        with torch.no_grad(), batch_norm_as("instance" if norm_mode == "instance" else "running"):
            yield
    finally:
        generator.train(training)


class _Image(nn.Module):
    """The picture alone, of a generator that may return more; its name becomes the prefix of the weights' names."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self._source = (source.family, source.network)
        self.add_module(source.network, source.generator)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        family, network = self._source
        return family.image(self.get_submodule(network), x)


def _traced(source: Source, manifest: Manifest) -> ModelProto:
    """The generator as a graph with bare NormAct nodes; BatchNorms with running statistics are folded away."""
    size = sum(parameter.numel() * 4 for parameter in source.generator.parameters())
    if size >= _PROTOBUF_LIMIT:
        raise BuildFailed(f"export: {size / 2**30:.1f} GiB of weights do not fit into one .onnx, which holds 2 GiB")
    spec = manifest.input
    height, width, shapes = spec.height, spec.width, None
    if spec.dynamic:  # not square, not minimal: or torch would take a coincidence for a rule
        height, width = (max(side, 2 * spec.multiple) for side in (height, width))
        width += spec.multiple
        sides = (torch.export.Dim(name, min=2, max=_LARGEST // spec.multiple) for name in ("height", "width"))
        shapes = {"x": {axis: spec.multiple * side for axis, side in enumerate(sides, 2)}}
    with _quiet():
        try:
            program = torch.onnx.export(
                _Image(source),
                (torch.zeros(manifest.batch, spec.channels, height, width),),
                dynamo=True,
                opset_version=_OPSET_BF16 if manifest.precision == "bf16" else _OPSET,
                input_names=["input"],
                output_names=["output"],
                dynamic_shapes=shapes,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            gist = next((line for line in str(error).splitlines() if "Error" in line), str(error)).strip()
            raise BuildFailed(f"export: torch cannot trace this {source.family.name} ({gist})") from error
        assert program is not None
        return program.model_proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch.onnx talks of packages it does not need and of its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _transforms(manifest: Manifest, rewrites: bool = True) -> list[Transform]:
    """What is done to a traced graph, in order."""
    transforms: list[Transform] = [partial(_sign, manifest), _fold_fills, _refuse_constant_norms]
    if rewrites:
        transforms.append(_rewrite)
    elif manifest.precision == "int8":
        transforms.append(partial(rewrite, names=["attention_fold"]))
    if manifest.precision in ("fp16", "bf16"):
        transforms.append(partial(retype, precision=manifest.precision))
    return transforms


def _sign(manifest: Manifest, model: ModelProto) -> None:
    """Name nodes after their modules, and drop what else the exporter wrote: source lines of the exporting machine."""
    graph = model.graph
    model.producer_name, model.producer_version = "gantrt", __version__
    graph.name = f"{manifest.family}_{manifest.network}"
    seen: Counter[str] = Counter()
    for node in graph.node:
        scopes = [ast.literal_eval(p.value) for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"]
        name = f"{scopes[0][-2]}.{node.op_type}" if scopes and len(scopes[0]) > 1 else node.op_type
        node.name = name.removeprefix(".") + (f".{seen[name]}" if seen[name] else "")
        seen[name] += 1
    for part in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""


def _fold_fills(model: ModelProto) -> None:
    """Make ConstantOfShape nodes, the scale and shift of norms without parameters, constants."""
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "ConstantOfShape" and node.input[0] in weights]:
        filler = [numpy_helper.to_array(attribute.t) for attribute in node.attribute]
        value = filler[0].reshape(()) if filler else np.float32(0)
        shape = numpy_helper.to_array(weights[node.input[0]]).tolist()
        graph.initializer.append(numpy_helper.from_array(np.full(shape, value), node.output[0]))
        graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in used:
            del graph.initializer[index]


def _refuse_constant_norms(model: ModelProto) -> None:
    """InstanceNorm of a single pixel is zero: whatever was encoded there would be lost."""
    shapes = {value.name: value.type.tensor_type.shape.dim for value in model.graph.value_info}
    for node in norm_act_nodes(model):
        height, width = (dim.dim_value for dim in shapes[node.input[0]][2:])
        if (height, width) == (1, 1) and not (len(node.input) > 3 and node.input[3]):
            raise BuildFailed(
                f"export: {node.name} would normalise single pixels, which leaves nothing of them; "
                "export with --norm-mode running, or larger pictures"
            )


def _rewrite(model: ModelProto) -> None:
    for name, places in rewrite(model).items():
        log.debug("export: rewrite %s, in %d places", name, places)
