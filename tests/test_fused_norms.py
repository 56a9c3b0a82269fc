"""Networks whose norms are our kernels make the pictures of torch's own definition."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gantrt_training.family import list_families, load_family, make_config
from gantrt_training.nets import norm
from gantrt_training.nets.fused import fused_norms
from gantrt_training.nets.norm import NormAct, batch_norm_as
from torch import Tensor, nn

SMALL: dict[str, dict[str, Any]] = {
    "pix2pix": {"size": 64, "ngf": 8, "ndf": 8, "norm": "instance"},
    "cyclegan": {"size": 64, "ngf": 8, "ndf": 8},
    "ugatit": {"size": 64, "ngf": 8, "ndf": 8, "light": True},
}


def generator_of(name: str) -> tuple[Any, nn.Module, int]:
    family = load_family(name)
    known = set(vars(make_config(family, "paper", {})))
    config = make_config(family, "paper", {k: v for k, v in SMALL.get(name, {}).items() if k in known})
    torch.manual_seed(0)
    generator = family.build(config)[family.generators["a2b"]].eval()
    for module in generator.modules():
        if isinstance(module, NormAct):
            for value in (module.rho, module.scale, module.shift):
                if value is not None:
                    value.data.uniform_(0.1, 0.9)
    return family, generator, config.size


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("name", list_families())
def test_every_family_makes_the_same_pictures(name: str, memory: torch.memory_format) -> None:
    family, generator, size = generator_of(name)
    x = torch.rand(2, 3, size, size) * 2 - 1
    calls = []
    with torch.no_grad(), batch_norm_as("instance"):
        expected = family.image(generator, x)
        generator.to(memory_format=memory)
        with fused_norms():
            kernels, norm.fused = norm.fused, lambda *arguments: calls.append(1) or kernels(*arguments)
            made = family.image(generator, x.contiguous(memory_format=memory))
    norms = sum(isinstance(module, NormAct) for module in generator.modules())
    assert len(calls) == norms
    assert (made - expected).abs().max() <= 5e-5


def test_learning_networks_keep_torchs_definition() -> None:
    module = NormAct(4, "lin")
    x = torch.randn(1, 4, 8, 8)
    with fused_norms():
        module(x).sum().backward()
    assert module.scale is not None
    assert module.scale.grad is not None
    assert norm.fused is None


def cases() -> list[tuple[Tensor | float | bool | int | None, ...]]:
    x = torch.randn(2, 8, 6, 7)
    scale, shift, rho = torch.rand(8), torch.rand(8), torch.rand(8)
    last = x.contiguous(memory_format=torch.channels_last)
    return [
        (x, None, None, None, None, 1e-5, False, 1.0, 0, 0),
        (x, scale, shift, None, None, 1e-5, False, 0.0, 1, 0),
        (last, scale, shift, rho, None, 1e-5, True, 0.2, 1, 0),
        (last, torch.rand(2, 8), torch.rand(2, 8), rho, torch.randn(2, 8, 8, 9), 1e-5, True, 0.0, 3, 1),
    ]


@pytest.mark.parametrize("case", range(len(cases())))
def test_torch_finds_the_op_well_behaved(case: int) -> None:
    """Its schema, and that its shapes, strides and dtypes are known without running it."""
    arguments = cases()[case]
    torch.library.opcheck(torch.ops.gantrt.norm_act, arguments, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.needs_cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", list_families())
def test_on_a_gpu_they_make_the_cpus_pictures(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    family, generator, size = generator_of(name)
    x = torch.rand(1, 3, size, size) * 2 - 1
    with torch.inference_mode(), batch_norm_as("instance"):
        expected = family.image(generator, x)
        generator.to("cuda", dtype, memory_format=torch.channels_last)
        x = x.to("cuda", dtype).contiguous(memory_format=torch.channels_last)
        with fused_norms():
            made = family.image(generator, x).float().cpu()
    limit = {torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 2e-1}[dtype]
    assert (made - expected).abs().max() <= limit
