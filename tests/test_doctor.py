"""gantrt doctor: what it says is true here, and a gap comes with its command."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from gantrt.cli import doctor, main


@pytest.fixture
def findings(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report.pop("ok") is True
    del report["engines"]  # named like their libraries
    return {finding["name"]: finding for section in report.values() for finding in section}


def test_versions_and_places_are_those_of_what_is_installed(findings: dict[str, dict[str, Any]]) -> None:
    import numpy

    assert findings["numpy"]["ok"]
    assert findings["numpy"]["detail"] == f"{version('numpy')}  {numpy.__file__}"
    assert version("openvino") in findings["openvino"]["detail"]
    from gantrt import _core

    assert ("no CUDA kernels" in findings["_core"]["detail"]) == (not _core.cuda_built())
    assert _core.__file__ in findings["_core"]["detail"]


def test_threads_and_cache_are_what_an_engine_would_get(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from gantrt.model_cache import ModelCache

    def details() -> dict[str, str]:
        assert main(["doctor", "--json"]) == 0
        return {finding["name"]: finding["detail"] for finding in json.loads(capsys.readouterr().out)["machine"]}

    monkeypatch.setenv("GANTRT_THREADS", "3")
    assert details()["threads"].startswith("3 for a network")
    assert details()["cache"].startswith("none")
    monkeypatch.setenv("GANTRT_CACHE", str(tmp_path / "cache"))
    cache = ModelCache.open(None)
    assert cache is not None
    cache.write("k", bytes(3 << 20))
    assert details()["cache"] == f"1 compiled models, 3 MB of 4096, in {tmp_path / 'cache'}"


def test_every_gap_has_its_command(findings: dict[str, dict[str, Any]]) -> None:
    for name in doctor._LIBRARIES:
        assert findings[name]["ok"] or findings[name]["fix"].startswith("pip install"), name


def test_text_names_gaps_and_fixes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor._LIBRARIES, "no_such_library", ("no-such", "nothing", "pip install no-such"))
    assert main(["doctor"]) == 0  # a gap that nobody needs is no failure
    out = capsys.readouterr().out
    assert "- no_such_library" in out
    assert "fix: pip install no-such" in out
    assert "the runtime is sound" in out


def test_a_broken_runtime_is_exit_4(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gantrt._core", None)  # as if the extension did not load
    assert main(["doctor"]) == 4
    out = capsys.readouterr().out
    assert "- _core" in out
    assert "the runtime is broken: _core" in out


def test_gpu_is_asked_of_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'NVIDIA H200, 9.0, 575.10, 143771 MiB'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (gpu,) = doctor._gpu()
    assert (gpu.name, gpu.ok) == ("cuda:0", True)
    assert "9.0" in gpu.detail
    smi.write_text("#!/bin/sh\necho 'Failed to initialize NVML: Driver/library version mismatch'\nexit 18\n")
    (gpu,) = doctor._gpu()
    assert not gpu.ok
    assert "version mismatch" in gpu.detail
    assert gpu.fix


def test_doctor_does_not_import_torch() -> None:
    code = "import sys; from gantrt.cli import main; main(['doctor']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
