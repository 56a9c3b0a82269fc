"""A traced graph as one edits it: who makes a value, who takes it, what a constant holds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper


class Graph:
    """An editing view of a model's graph; what others change in it meanwhile, it does not see."""

    def __init__(self, model: ModelProto) -> None:
        self.proto = model.graph
        self._constants = {tensor.name: tensor for tensor in self.proto.initializer}
        self._values = {value.name: value for value in (*self.proto.input, *self.proto.value_info, *self.proto.output)}
        self._results = {value.name for value in self.proto.output}
        self._names = {name for node in self.proto.node for name in (*node.input, *node.output)} | set(self._constants)

    def nodes(self, *op_types: str) -> list[NodeProto]:
        """Those of the given types, in order. They may be replaced while one goes through them."""
        return [node for node in self.proto.node if node.op_type in op_types]

    def maker(self, name: str, op_type: str) -> NodeProto | None:
        """The node that makes a value, if it is of this type."""
        return next((node for node in self.proto.node if name in node.output and node.op_type == op_type), None)

    def only_taker(self, name: str) -> NodeProto | None:
        """The one node that sees a value, as one of its inputs; None if there are more, or the caller sees it too."""
        takers = [node for node in self.proto.node for taken in node.input if taken == name]
        return takers[0] if len(takers) == 1 and name not in self._results else None

    def constant(self, name: str) -> NDArray[Any] | None:
        tensor = self._constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def plane(self, name: str) -> tuple[int, int]:
        """Height and width of an NCHW value; 0 where they are open, or the graph does not say."""
        height, width = self._sides(name)
        return int(getattr(height, "dim_value", 0)), int(getattr(width, "dim_value", 0))

    def has_even_sides(self, name: str) -> bool:
        """Whether height and width are even, whatever they are: 256, or 4 times an open number."""
        sides = [str(side and (side.dim_value or side.dim_param)) for side in self._sides(name)]
        factors = [re.fullmatch(r"(\d+)(\*\w+)?", side) for side in sides]
        return all(factor and int(factor[1]) > 0 and int(factor[1]) % 2 == 0 for factor in factors)

    def _sides(self, name: str) -> list[Any]:
        value = self._values.get(name)
        dims = list(value.type.tensor_type.shape.dim) if value is not None else []
        return dims[2:] if len(dims) == 4 else [None, None]

    def add_constant(self, like: str, array: NDArray[Any]) -> str:
        """A new constant; returns its name, which is `like` or begins so."""
        name = self.new_name(like)
        self.proto.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        self._constants[name] = self.proto.initializer[-1]
        return name

    def new_name(self, like: str) -> str:
        name, count = like, 0
        while name in self._names:
            count += 1
            name = f"{like}.{count}"
        self._names.add(name)
        return name

    def replace(self, old: Sequence[NodeProto], new: Sequence[NodeProto]) -> None:
        """Put `new` where the last of `old` stands."""
        gone = {id(node) for node in old}
        places = [index for index, node in enumerate(self.proto.node) if id(node) in gone]
        for index, node in enumerate(new, places[-1] + 1):
            self.proto.node.insert(index, node)
        for index in reversed(places):
            del self.proto.node[index]

    def drop_unused(self) -> None:
        """Forget the constants and the descriptions of values that no node has any more."""
        used = {name for node in self.proto.node for name in (*node.input, *node.output)} | self._results
        for entries in (self.proto.initializer, self.proto.value_info):
            for index in reversed(range(len(entries))):
                if entries[index].name not in used:
                    del entries[index]
        self._constants = {tensor.name: tensor for tensor in self.proto.initializer}


@dataclass(frozen=True)
class Window:
    """How a convolution moves, transposed or not."""

    strides: tuple[int, ...] = (1, 1)
    pads: tuple[int, ...] = (0, 0, 0, 0)  # top, left, bottom, right
    dilations: tuple[int, ...] = (1, 1)
    output_padding: tuple[int, ...] = (0, 0)
    group: int = 1
    auto_pad: str = "NOTSET"

    @classmethod
    def of(cls, node: NodeProto) -> Window:
        said = attributes(node)
        fields: dict[str, Any] = {
            name: tuple(said[name]) for name in ("strides", "pads", "dilations", "output_padding") if name in said
        }
        return cls(**fields, group=said.get("group", 1), auto_pad=said.get("auto_pad", b"NOTSET").decode())


def attributes(node: NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
