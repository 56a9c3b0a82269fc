"""Which kernels a TensorRT-RTX plan launches, counted in the plan: fusions that break are seen where there is no GPU.

TensorRT-RTX is pinned: another version may fuse otherwise.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from conftest import ROOT
from gantrt.plan_file import read_plan_manifest
from gantrt.plans.build import Request, build_plan
from gantrt.plans.census import Launch, census

rtx = pytest.importorskip("tensorrt_rtx", reason="needs TensorRT-RTX: pip install tensorrt-rtx-cu13==1.7.1.116")
if rtx.__version__ != "1.7.1.116":
    pytest.skip(f"counted with TensorRT-RTX 1.7.1.116, here is {rtx.__version__}", allow_module_level=True)

GPUS = {"fp16": (75, 86, 89, 120), "fp32": (75, 89)}  # bench/plans.py counts them all

# Network of bench/plans.py -> most launches with plugins, and fewest without, on SM89 in fp16.
LIMITS = {
    "resnet9": (50, 95),
    "ugatit_light": (60, 110),
    "unet_batch_norm": (27, 0),
    "discogan": (12, 0),
    "discogan_bottleneck": (12, 0),
}


@pytest.fixture(scope="module", params=LIMITS)
def engines(request, tmp_path_factory) -> tuple[str, dict[str, Path]]:
    """(network, precision -> engine file)."""
    spec = importlib.util.spec_from_file_location("plans", ROOT / "bench" / "plans.py")
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    return request.param, bench.engines(request.param, tmp_path_factory.mktemp(request.param))


def built(engine: Path, gpu: int, *, plugins: bool = True) -> list[Launch]:
    plan = engine.with_suffix(".plan")
    build_plan(engine, plan, Request("tensorrt-rtx", (gpu,), plugins, progress=False), overwrite=True)
    assert read_plan_manifest(plan).target["compute_capability"] == f"{gpu // 10}.{gpu % 10}"
    return census(plan)


def test_a_plan_launches_few_kernels_for_every_gpu_and_precision(engines) -> None:
    name, files = engines
    most, stock_launches = LIMITS[name]
    for precision, engine in files.items():
        for gpu in GPUS[precision]:
            launches = built(engine, gpu)
            assert len(launches) <= most, (precision, gpu, [launch.name for launch in launches])
            assert {launch.writes for launch in launches if launch.is_convolution} - {""} == {precision}
            assert not between_convolution_and_plugin(launches), (precision, gpu)
            assert any(launch.is_plugin for launch in launches) == (stock_launches > 0)
    if stock_launches:
        stock = built(files["fp16"], 89, plugins=False)
        assert not any(launch.is_plugin for launch in stock)
        assert len(stock) >= stock_launches


def between_convolution_and_plugin(launches: list[Launch]) -> list[str]:
    """Kernels that only move data from the one's layout to the other's."""
    return [
        launch.name
        for before, launch, after in zip(launches, launches[1:], launches[2:], strict=False)
        if (before.is_plugin or after.is_plugin)
        and (before.is_convolution or after.is_convolution)
        and launch.name in ("__myl_Tran", "__myl_TranCast", "__myl_CastTran", "__myl_Move", "__myl_Cast")
    ]
