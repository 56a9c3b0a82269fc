"""NormAct against the layers and formulas it stands for."""

from __future__ import annotations

import contextlib
import io
import itertools

import onnx
import pytest
import torch
import torch.nn.functional as F
from gantrt_training.nets.norm import NormAct, batch_norm_as, norm_act
from gantrt_training.nets.patchgan import _InstanceNorm
from torch import Tensor, nn


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Far from centred and scaled, so that statistics matter."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 2 + 3


def lin(x: Tensor, gamma: Tensor, beta: Tensor, rho: Tensor, eps: float = 1e-5) -> Tensor:
    """Kim et al. 2020, eq. 1, as the authors' code computes it: torch.var divides by n - 1."""
    instance = (x - x.mean((2, 3), keepdim=True)) / torch.sqrt(x.var((2, 3), keepdim=True) + eps)
    layer = (x - x.mean((1, 2, 3), keepdim=True)) / torch.sqrt(x.var((1, 2, 3), keepdim=True) + eps)
    mixed = rho.view(1, -1, 1, 1) * instance + (1 - rho.view(1, -1, 1, 1)) * layer
    return mixed * gamma.view(-1, x.shape[1], 1, 1) + beta.view(-1, x.shape[1], 1, 1)


ACTS = {"none": lambda y: y, "relu": F.relu, "leaky_relu": lambda y: F.leaky_relu(y, 0.2)}


@pytest.mark.parametrize(("act", "pad", "rpad"), list(itertools.product(ACTS, (0, 1, 3), (None, 0, 1))))
def test_instance_norm_then_activation_then_residual_then_pad(act: str, pad: int, rpad: int | None) -> None:
    x = noise(2, 5, 8, 6)
    residual = None if rpad is None else noise(2, 5, 8 + 2 * rpad, 6 + 2 * rpad, seed=1)
    wanted = ACTS[act](nn.InstanceNorm2d(5)(x))
    if residual is not None:
        wanted = wanted + (residual[..., 1:-1, 1:-1] if rpad else residual)
    wanted = nn.ReflectionPad2d(pad)(wanted)
    got = NormAct(5, "instance", act=act, pad=pad, rpad=rpad or 0)(x, residual)
    assert torch.equal(got, wanted)


@pytest.mark.parametrize("kind", ["lin", "adalin"])
def test_lin_and_adalin_are_the_paper_s_formula(kind: str) -> None:
    x, layer = noise(3, 4, 6, 5), NormAct(4, kind, act="none")
    layer.rho.data.copy_(torch.tensor([0.0, 0.3, 0.9, 1.0]))
    if kind == "lin":
        layer.scale.data.copy_(noise(4, seed=1))
        layer.shift.data.copy_(noise(4, seed=2))
        got, wanted = layer(x), lin(x, layer.scale, layer.shift, layer.rho)
    else:
        gamma, beta = noise(3, 4, seed=1), noise(3, 4, seed=2)
        got, wanted = layer(x, scale=gamma, shift=beta), lin(x, gamma, beta, layer.rho)
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=3e-6)


def test_rho_starts_where_the_authors_start() -> None:
    assert NormAct(3, "adalin").rho.tolist() == pytest.approx([0.9] * 3)
    layer = NormAct(3, "lin")
    assert (layer.rho.tolist(), layer.scale.tolist(), layer.shift.tolist()) == ([0.0] * 3, [1.0] * 3, [0.0] * 3)


def test_batch_norm_in_train_mode_is_batch_norm() -> None:
    x, layer, twin = noise(4, 3, 5, 5), NormAct(3, "batch", act="relu"), nn.BatchNorm2d(3)
    assert torch.equal(layer(x), F.relu(twin(x)))
    assert torch.equal(layer.bn.running_mean, twin.running_mean)
    assert torch.equal(layer.bn.running_var, twin.running_var)


def test_batch_norm_in_eval_mode_uses_the_statistics_it_is_told_to() -> None:
    layer = NormAct(3, "batch", act="none")
    nn.init.normal_(layer.bn.weight)
    nn.init.normal_(layer.bn.bias)
    layer(noise(4, 3, 5, 5))
    x = noise(1, 3, 7, 7, seed=1) * 3
    trained = layer(x)  # train mode at batch 1
    layer.eval()
    assert not torch.allclose(layer(x), trained, atol=0.1)
    with batch_norm_as("instance"):
        assert torch.equal(layer(x), trained)
        two = layer(torch.cat([x, noise(1, 3, 7, 7)]))
    torch.testing.assert_close(two[:1], trained, rtol=0, atol=1e-6)
    assert not torch.allclose(layer(x), trained, atol=0.1)  # as before, outside


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_float32_statistics(dtype: torch.dtype) -> None:
    """Squares of 1000 overflow float16, sums over 64x64 do so sooner."""
    x = (noise(1, 4, 64, 64) * 30 + 1000).to(dtype)
    for layer in (NormAct(4, "instance", act="none"), NormAct(4, "lin", act="none")):
        got = layer(x)
        assert got.dtype == dtype
        torch.testing.assert_close(got.float(), layer(x.float()), rtol=2e-2, atol=2e-2)


def test_gradients_flow_as_through_the_formula() -> None:
    x, gamma, beta = (tensor.double().requires_grad_() for tensor in (noise(2, 3, 4, 4), noise(2, 3), noise(2, 3)))
    rho = torch.rand(3, dtype=torch.float64, requires_grad=True)
    inputs = (x, gamma, beta, rho)
    got = norm_act(x, gamma, beta, rho, unbiased=True).tanh().sum()
    wanted = lin(x, gamma, beta, rho).tanh().sum()
    pairs = zip(torch.autograd.grad(got, inputs), torch.autograd.grad(wanted, inputs), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)  # ours goes through float32


def test_scale_without_shift_is_refused() -> None:
    with pytest.raises((ValueError, AttributeError), match="together"):
        norm_act(noise(2, 3, 4, 4), scale=noise(2, 3))


class Two(nn.Module):
    """An AdaLIN with a residual, and a bare InstanceNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.one = NormAct(4, "adalin", act="leaky_relu", pad=1, rpad=1)
        self.two = NormAct(4, "instance", act="relu")

    def forward(self, x: Tensor, residual: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        return self.two(self.one(x, residual, gamma, beta))


@pytest.mark.filterwarnings("ignore")
def test_an_exported_graph_has_one_node_per_norm() -> None:
    example = (noise(1, 4, 6, 6), noise(1, 4, 8, 8), noise(1, 4), noise(1, 4))
    with contextlib.redirect_stdout(io.StringIO()):
        model = torch.onnx.export(Two().eval(), example, dynamo=True, verbose=False).model_proto
    nodes = [node for node in model.graph.node if node.domain == "gantrt"]
    assert [node.op_type for node in nodes] == ["NormAct", "NormAct"]
    first, second = (
        {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute} for node in nodes
    )
    assert (first["unbiased"], first["pad"], first["rpad"], first["slope"]) == (1, 1, 1, pytest.approx(0.2))
    assert (second["unbiased"], second["pad"], second["rpad"], second["slope"]) == (0, 0, 0, 0.0)
    assert second["eps"] == pytest.approx(1e-5)
    assert all(nodes[0].input)
    assert len(nodes[0].input) == 5
    assert len(nodes[1].input) == 3


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_instance_norm_s_gradient_is_right_however_pictures_lie(batch: int, layout: torch.memory_format) -> None:
    """torch's own CPU kernel answers a channels-last gradient of a single picture with a wrong one, silently."""
    x, above = noise(batch, 5, 6, 7).double(), noise(batch, 5, 6, 7, seed=1)
    x.requires_grad_()
    standard = (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
    (wanted,) = torch.autograd.grad(standard, x, above.double())
    for layer in (NormAct(5, "instance", act="none"), _InstanceNorm(5)):
        given = x.detach().float().contiguous(memory_format=layout).requires_grad_()
        (got,) = torch.autograd.grad(layer(given), given, above.contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mean", [0.0, 20.0, 100.0])
def test_a_judge_s_statistics_are_float32_in_bfloat16(mean: float) -> None:
    x = (noise(1, 4, 64, 64) + mean).bfloat16()
    wanted = nn.functional.instance_norm(x.double())
    got = _InstanceNorm(4)(x)
    assert got.dtype == torch.bfloat16
    rounding = (wanted.bfloat16() - wanted).abs().max()
    assert (got - wanted).abs().max() <= 1.01 * rounding
