"""Where real data lies, and what a GPU test does without a GPU."""

from __future__ import annotations

import ctypes
import logging
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import emulated_cuda as emulated_cuda_module
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch comes: with tiny networks a second thread only waits
os.environ["GANTRT_CACHE"] = "off"  # tests leave nothing in the user's cache folder
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job in the background starts with it ignored

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real pictures and clips; the test is skipped where there is none."""
    for candidate in (os.environ.get("GANTRT_TEST_DATA"), ROOT.parent / "shared" / "data"):
        if candidate and Path(candidate).is_dir():
            return Path(candidate)
    pytest.skip(
        "needs real data: set GANTRT_TEST_DATA to a folder with facades/, mnist/, selfie2anime/, videos/, images/"
    )


@pytest.fixture(autouse=True)
def _quiet_log() -> Iterator[None]:
    """The log as a library has it, whatever commands earlier tests ran: these send it to a stderr that is gone."""
    log = logging.getLogger("gantrt")
    log.handlers.clear()
    log.propagate, level = True, log.level
    yield
    log.setLevel(level)


@pytest.fixture
def tiny_families(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adds the families in tests/tiny_families to those that exist: the folder is the registry."""
    from gantrt_training import families

    monkeypatch.setattr(families, "__path__", [*families.__path__, str(Path(__file__).parent / "tiny_families")])


@pytest.fixture(scope="session")
def emulated_cuda(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return emulated_cuda_module.build(tmp_path_factory.mktemp("cuda"))


def has_cuda_device() -> bool:
    smi = shutil.which("nvidia-smi")
    return smi is not None and subprocess.run([smi, "-L"], capture_output=True, check=False).returncode == 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A `needs_cuda` test skips without a GPU, unless GANTRT_REQUIRE=cuda says that there must be one."""
    if os.environ.get("GANTRT_TEST_CORE"):
        for item in items:
            if "plain_core" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="is not about the core that checks itself"))
    if os.environ.get("GANTRT_REQUIRE") == "cuda" or has_cuda_device():
        return
    skip = pytest.mark.skip(reason="needs an NVIDIA GPU")
    for item in items:
        if "needs_cuda" in item.keywords:
            item.add_marker(skip)
