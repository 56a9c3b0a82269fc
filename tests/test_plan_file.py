"""A plan's manifest and seal, read where there is no TensorRT: whatever is damaged is named, in one line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from gantrt.cli import main
from gantrt.engine_file import guess_manifest, read_manifest
from gantrt.errors import EngineCorrupt, EngineMismatch
from gantrt.manifest import InputSpec, Manifest
from gantrt.plan_file import UNSEALED, read_plan_manifest, seal
from gantrt.plans.check import rebuild
from gantrt.plans.rtx_alias import elf_alias

MANIFEST = Manifest(
    family="cyclegan",
    input=InputSpec(3, 64, 96),
    plugins=({"name": "gantrt::NormAct", "version": "1"},),
    target={
        "runtime": "tensorrt-rtx",
        "version": "1.7.1.116",
        "compute_capability": "8.9",
        "source": "runs/facades --precision fp16",
        "options": "--dynamic 64x64:64x96:128x128",
        "crc32": UNSEALED,
    },
)


def write_plan(path: Path, manifest: Manifest = MANIFEST, magic: bytes = b"vtrt") -> Path:
    """Bytes that look like a plan to all but TensorRT, sealed."""
    noise = bytes(range(256)) * 40
    path.write_bytes(magic + bytes(60) + b'{"batch":no manifest' + manifest.to_json().encode() + noise)
    seal(path)
    return path


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return write_plan(tmp_path / "facades.plan")


def test_a_plan_says_what_it_is(plan, capsys) -> None:
    manifest = read_manifest(plan)
    assert replace(manifest, target=manifest.target | {"crc32": UNSEALED}) == MANIFEST
    assert main(["inspect", str(plan)]) == 0
    shown = capsys.readouterr().out
    assert "tensorrt-rtx 1.7.1.116" in shown
    assert "compute capability 8.9" in shown
    assert "runs/facades --precision fp16 --dynamic 64x64:64x96:128x128" in shown
    assert "gantrt::NormAct 1" in shown


def test_no_tensorrt_is_imported_to_read_it(plan) -> None:
    code = (
        f"import sys; from gantrt.engine_file import read_manifest; assert read_manifest({str(plan)!r});"
        "sys.exit(any(name.startswith('tensorrt') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "a few bytes": lambda data: data[:40],
    "head lost": lambda data: data[4:],
    "text": lambda data: b"no plan, but a text that is long enough for the smallest of all headers",
    "cut short": lambda data: data[:-1],
    "one bit": lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
    "something behind": lambda data: data + b"\0",
    "manifest edited": lambda data: data.replace(b'"fp32"', b'"fp16"'),
    "seal lost": lambda data: data.replace(b'"crc32":"', b'"crc33":"'),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_plan_is_named_in_one_line(plan, damage, capsys) -> None:
    plan.write_bytes(DAMAGE[damage](plan.read_bytes()))
    with pytest.raises(EngineCorrupt, match=r"facades\.plan"):
        read_plan_manifest(plan)
    for command in (["inspect", str(plan)], ["translate", "--engine", str(plan), "x.png", "-o", "y.png"]):
        assert main(command) in (3, 5)  # 5: translate looks for x.png first
    assert all("facades.plan" in line or "x.png" in line for line in capsys.readouterr().err.splitlines())


def test_what_is_missing_is_no_engine(tmp_path, capsys) -> None:
    assert main(["inspect", str(tmp_path / "none.plan")]) == 3
    assert "no such engine" in capsys.readouterr().err


def test_a_newer_gantrts_plan_is_a_mismatch(tmp_path) -> None:
    with pytest.raises(EngineMismatch, match="upgrade gantrt"):
        read_plan_manifest(write_plan(tmp_path / "new.plan", replace(MANIFEST, schema=99)))


@pytest.mark.parametrize("magic", [b"vtrt", b"ftrt", b"ptrt"])
def test_another_programs_plan_has_no_manifest(tmp_path, magic, capsys) -> None:
    path = tmp_path / "trtexec.plan"
    path.write_bytes(magic + bytes(range(200)) + b'{"batch":1}' + b'{"batch":' * 50)
    assert read_plan_manifest(path) is None
    assert guess_manifest(path, range=(0, 1)).range == (0, 1)
    assert main(["inspect", str(path)]) == 0
    assert "manifest  none" in capsys.readouterr().out


def test_the_rebuild_command_says_all_that_was_said(plan) -> None:
    assert rebuild(Path("a b.plan"), MANIFEST, "8.6") == (
        "gantrt export runs/facades --precision fp16 -o 'a b.plan' --overwrite --target tensorrt-rtx "
        "--compute-capability 8.6 --dynamic 64x64:64x96:128x128"
    )
    tensorrt = replace(MANIFEST, target={"runtime": "tensorrt", "source": "g.onnx"})
    assert rebuild(plan, tensorrt, "8.6", without_plugins=True) == (
        f"gantrt export g.onnx -o {plan} --overwrite --target tensorrt --no-plugins"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="ELF")
def test_the_alias_brings_what_it_needs_under_its_own_name(tmp_path) -> None:
    """Loading it makes the other name known, and symbols of the library it needs are found through it."""
    path = tmp_path / "libalias.so"
    path.write_bytes(elf_alias(b"libgantrt_alias.so", b"libm.so.6"))
    code = (
        f"import ctypes; ctypes.CDLL({str(path)!r}); "
        "cos = ctypes.CDLL('libgantrt_alias.so').cos; cos.restype = ctypes.c_double; "
        "assert cos(ctypes.c_double(0)) == 1"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
