"""What gantrt::NormAct means to an engine that has no kernel for it: its body, in standard ONNX ops.

    y = reflect_pad(act(scale * n(x) + shift) + crop(residual))

The node keeps its attributes (a TensorRT plugin reads them), and names the one of several bodies that fits it: the
`overload`. So a graph carries exactly the operations its cases need, and no branch is left for run time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import BuildFailed

if TYPE_CHECKING:
    from onnx import FunctionProto, ModelProto, NodeProto

DOMAIN = "gantrt"
OP = "NormAct"
VERSION = "1"
IR_VERSION = 10  # the first with overloads; onnx 1.16, onnxruntime 1.18

_ELEMENT = {"float": 1, "float16": 10, "bfloat16": 16}  # TensorProto.DataType
_NAME = {number: name for name, number in _ELEMENT.items()}
_ATTRIBUTES = (
    "eps: float = 1e-05, unbiased: int = 0, slope: float = 1.0, pad: int = 0, rpad: int = 0, "
    'plugin_namespace: string = "gantrt", plugin_version: string = "1"'
)


@dataclass(frozen=True)
class Case:
    """What decides which operations a NormAct node is made of; `eps` and a leaky slope stay attributes."""

    mixed: bool = False  # rho is given: LIN, AdaLIN
    per_sample: bool = False  # scale and shift are (N, C) instead of (C,)
    unbiased: bool = False
    act: str = "none"  # "none", "relu", "leaky_relu"
    residual: bool = False
    rpad: int = 0
    pad: int = 0
    dtype: str = "float"  # of x, residual and y; scale, shift and rho are always float

    @property
    def overload(self) -> str:
        """The name of this case's body, e.g. "instance.relu.pad1"."""
        words = ["mixed" if self.mixed else "instance"]
        words += ["per_sample"] * self.per_sample + ["unbiased"] * self.unbiased
        words += [self.act] * (self.act != "none")
        words += ["residual"] * self.residual + [f"crop{self.rpad}"] * (self.residual and self.rpad > 0)
        words += [f"pad{self.pad}"] * (self.pad > 0) + [self.dtype] * (self.dtype != "float")
        return ".".join(words)


def attach_bodies(model: ModelProto) -> None:
    """Give every NormAct node of `model` its overload, and the model the bodies used; changes `model` in place.

    May be called again: bodies that are there are replaced. Raises BuildFailed if a node is not a NormAct of ours,
    or if the graph does not say of which type and rank its inputs are.
    """
    types = _value_types(model)
    cases = {}
    for node in norm_act_nodes(model):
        case = _case(node, types)
        cases[case.overload] = case
        node.overload = case.overload
    others = [function for function in model.functions if function.domain != DOMAIN]
    del model.functions[:]
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    model.functions.extend([*others, *(body(case, opset) for _, case in sorted(cases.items()))])
    if cases:
        model.ir_version = max(model.ir_version, IR_VERSION)


def norm_act_nodes(model: ModelProto) -> list[NodeProto]:
    return [node for node in model.graph.node if node.domain == DOMAIN and node.op_type == OP]


def body(case: Case, opset: int) -> FunctionProto:
    """The function `case.overload` of gantrt::NormAct."""
    import onnx.parser

    inputs = ["x", "scale", "shift"] + ["rho"] * (case.mixed or case.residual) + ["residual"] * case.residual
    lines = _Lines()
    output = _write_body(lines, case)
    text = (
        f'<domain: "{DOMAIN}", overload: "{case.overload}", opset_import: ["": {opset}]>\n'
        f"{OP} <{_ATTRIBUTES}> ({', '.join(inputs)}) => ({output}) {{\n" + "\n".join(lines) + "\n}"
    )
    return onnx.parser.parse_function(text)


class _Lines(list[str]):
    """Statements of ONNX's text syntax; `let` adds one and returns the name it defines."""

    def let(self, name: str, expression: str) -> str:
        self.append(f"  {name} = {expression}")
        return name

    def ints(self, name: str, values: list[int]) -> str:
        return self.let(name, f"Constant <value_ints = {values}> ()")


def _write_body(lines: _Lines, case: Case) -> str:
    let, half = lines.let, case.dtype != "float"
    x = let("x32", "Cast <to = 1> (x)") if half else "x"
    y = _normalised(lines, case, x)
    if case.act == "relu":
        y = let("acted", f"Relu ({y})")
    elif case.act == "leaky_relu":
        y = let("acted", f"LeakyRelu <alpha: float = @slope> ({y})")
    if case.residual:
        residual = let("residual32", "Cast <to = 1> (residual)") if half else "residual"
        if case.rpad:
            start, end = lines.ints("start", [case.rpad] * 2), lines.ints("end", [-case.rpad] * 2)
            residual = let("cropped", f"Slice ({residual}, {start}, {end}, {lines.ints('height_width', [2, 3])})")
        y = let("added", f"Add ({y}, {residual})")
    if case.pad:
        pads = lines.ints("pads", [0, 0, case.pad, case.pad] * 2)
        y = let("padded", f'Pad <mode = "reflect"> ({y}, {pads})')
    if half:  # once, and last: some engines cannot pad bfloat16
        y = let("rounded", f"Cast <to = {_ELEMENT[case.dtype]}> ({y})")
    return y


def _normalised(lines: _Lines, case: Case, x: str) -> str:
    """scale * n(x) + shift."""
    let = lines.let
    if not (case.mixed or case.per_sample or case.unbiased):
        return let("normed", f"InstanceNormalization <epsilon: float = @eps> ({x}, scale, shift)")
    axes = lines.ints("affine_axes", [2, 3] if case.per_sample else [1, 2])
    scale, shift = let("scale4", f"Unsqueeze (scale, {axes})"), let("shift4", f"Unsqueeze (shift, {axes})")

    # The second moment is taken about the mean: E[x^2] - E[x]^2 loses the digits.
    plane = lines.ints("plane", [2, 3])
    mean = let("mean", f"ReduceMean ({x}, {plane})")
    centred = let("centred", f"Sub ({x}, {mean})")
    moment = let("moment", f"ReduceMean ({let('squared', f'Mul ({centred}, {centred})')}, {plane})")
    deviation = _deviation(lines, case, x, moment, "channel", first_axis=2)
    if case.mixed:
        gain, lean = _mixture(lines, case, x, mean, moment, deviation)
        gain = let("gain", f"Mul ({gain}, {scale})")
        shift = let("bias", f"Add ({let('scaled_lean', f'Mul ({lean}, {scale})')}, {shift})")
    else:
        gain = let("gain", f"Div ({scale}, {deviation})")
    return let("normed", f"Add ({let('scaled', f'Mul ({centred}, {gain})')}, {shift})")


def _mixture(lines: _Lines, case: Case, x: str, mean: str, moment: str, deviation: str) -> tuple[str, str]:
    """(gain, lean): n(x) = (x - m_c) * gain + lean, the mixture as one affine of the centred plane.

    LayerNorm's statistics follow from those of the planes:
        M = mean_c(m_c),  V = mean_c(v_c + (m_c - M)^2),  r = (1 - rho) / sqrt(V + eps)
        gain = rho / sqrt(v_c + eps) + r,  lean = (m_c - M) r
    Two stages are also what keeps float32 exact: one sum over C*H*W values is off by 4e-4 in some engines.
    """
    let = lines.let
    channel = lines.ints("channel", [1])
    offset = let("offset", f"Sub ({mean}, {let('layer_mean', f'ReduceMean ({mean}, {channel})')})")
    spread = let("spread", f"Add ({moment}, {let('offset_squared', f'Mul ({offset}, {offset})')})")
    layer_moment = let("layer_moment", f"ReduceMean ({spread}, {channel})")
    layer_deviation = _deviation(lines, case, x, layer_moment, "layer", first_axis=1)
    rho = let("rho4", f"Unsqueeze (rho, {lines.ints('rho_axes', [1, 2])})")
    rest = let("rest", f"Sub ({let('unit', 'Constant <value_float = 1.0> ()')}, {rho})")
    layer_gain = let("layer_gain", f"Div ({rest}, {layer_deviation})")
    gain = let("mixed_gain", f"Add ({let('instance_gain', f'Div ({rho}, {deviation})')}, {layer_gain})")
    return gain, let("lean", f"Mul ({offset}, {layer_gain})")


def _deviation(lines: _Lines, case: Case, x: str, moment: str, of: str, first_axis: int) -> str:
    """sqrt(variance + eps). Unbiased, the second moment over n values becomes that over n - 1 (over 1 if n = 1).

    n is the product of x's dimensions from `first_axis` on; where these are static an engine folds it away.
    """
    let = lines.let
    if case.unbiased:
        start, end = lines.ints(f"{of}_start", [first_axis]), lines.ints(f"{of}_end", [4])
        sizes = let(f"{of}_sizes", f"Slice ({let(f'{of}_shape', f'Shape ({x})')}, {start}, {end})")
        count = let(f"{of}_count", f"ReduceProd <keepdims = 0> ({let(f'{of}_floats', f'Cast <to = 1> ({sizes})')})")
        one = let(f"{of}_one", "Constant <value_float = 1.0> ()")
        divisor = let(f"{of}_divisor", f"Max ({let(f'{of}_less', f'Sub ({count}, {one})')}, {one})")
        moment = let(f"{of}_variance", f"Mul ({moment}, {let(f'{of}_factor', f'Div ({count}, {divisor})')})")
    epsilon = let(f"{of}_eps", "Constant <value_float: float = @eps> ()")
    return let(f"{of}_deviation", f"Sqrt ({let(f'{of}_stable', f'Add ({moment}, {epsilon})')})")


def _value_types(model: ModelProto) -> dict[str, tuple[int, int]]:
    """Name -> (element type, rank), of everything the graph says it of."""
    graph = model.graph
    types = {
        value.name: (value.type.tensor_type.elem_type, len(value.type.tensor_type.shape.dim))
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }
    return types | {tensor.name: (tensor.data_type, len(tensor.dims)) for tensor in graph.initializer}


def _case(node: NodeProto, types: dict[str, tuple[int, int]]) -> Case:
    import onnx.helper

    names = [*node.input, "", ""][:5]
    attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    slope = float(attributes.get("slope", 1.0))
    try:
        (element, _), (_, scale_rank) = types[names[0]], types[names[1]]
        dtype = _NAME[element]
    except KeyError as error:
        raise BuildFailed(
            f"{OP} {node.name!r}: the graph does not give a float type and a shape for {error}"
        ) from error
    if scale_rank not in (1, 2) or not 0.0 <= slope <= 1.0:
        raise BuildFailed(f"{OP} {node.name!r}: scale of rank {scale_rank} and slope {slope} are not a {OP} of gantrt")
    return Case(
        mixed=bool(names[3]),
        per_sample=scale_rank == 2,
        unbiased=bool(attributes.get("unbiased", 0)),
        act={1.0: "none", 0.0: "relu"}.get(slope, "leaky_relu"),
        residual=bool(names[4]),
        rpad=int(attributes.get("rpad", 0)) if names[4] else 0,
        pad=int(attributes.get("pad", 0)),
        dtype=dtype,
    )
