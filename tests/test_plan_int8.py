"""An int8 engine becomes a TensorRT-RTX plan whose convolutions read bytes; no GPU builds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gantrt.errors import BuildFailed
from gantrt.manifest import Manifest
from gantrt.plan_file import read_plan_manifest
from gantrt.plans.build import Request, _check_int8, build_plan
from gantrt.plans.census import Launch, census

pytest.importorskip("nncf")
pytest.importorskip("tensorrt_rtx", reason="needs TensorRT-RTX: pip install tensorrt-rtx-cu13")


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small int8 engines: one of InstanceNorm and NormAct, one of BatchNorm and transposed convolutions."""
    from gantrt_training.export import export_generator
    from test_quantise import a_source, request
    from tiny_pictures import picture, write

    folder = tmp_path_factory.mktemp("int8")
    pictures = folder / "pictures"
    pictures.mkdir()
    for n in range(12):
        coarse = picture(n, 4, 5).astype(np.float32).repeat(12, 0).repeat(12, 1)
        write(pictures / f"{n:02}.png", (0.8 * coarse + 0.2 * picture(50 + n, 48, 60)).astype(np.uint8))
    made = {}
    for name in ("cyclegan", "discogan"):
        made[name] = folder / f"{name}.onnx"
        export_generator(a_source(name), made[name], request(pictures))
    return made


@pytest.mark.parametrize("plugins", [True, False])
@pytest.mark.parametrize("name", ["cyclegan", "discogan"])
def test_convolutions_read_bytes(name: str, plugins: bool, engines: dict[str, Path], tmp_path: Path) -> None:
    plan = tmp_path / "x.plan"
    build_plan(engines[name], plan, Request(capabilities=(89,), plugins=plugins, progress=False))
    manifest = read_plan_manifest(plan)
    assert manifest is not None
    assert manifest.precision == "int8"
    launches = census(plan)
    plain = [launch for launch in launches if launch.is_convolution and not launch.is_transposed_convolution]
    assert {launch.reads for launch in plain} == {"int8"}
    assert len(plain) == {"cyclegan": 6, "discogan": 4}[name]
    assert any(launch.is_plugin for launch in launches) == (plugins and name == "cyclegan")


def launch(name: str, reads: str, kind: str = "corrltn") -> Launch:
    return Launch(kind, name, "fp32", reads)


def test_a_convolution_that_is_not_int8_ends_the_build(caplog: pytest.LogCaptureFixture) -> None:
    def of(kept: str) -> Any:
        return Manifest(precision="int8", norm_mode="none", int8={"kept_fp": kept})

    with pytest.raises(BuildFailed, match="made b a kernel of fp32, not int8"):
        _check_int8([launch("a", "int8"), launch("b", "fp32")], of(""))
    _check_int8([launch("a", "int8"), launch("b", "fp32")], of("b"))
    assert not caplog.records
    _check_int8([launch("a", "int8"), launch("up", "fp32", "deconvolution")], of(""))
    assert "1 of 2 convolutions wider than int8" in caplog.text
