"""What comes into a build and what goes out of it: pins, shipped files, the list of parts, no trace of the builder."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from gantrt import _core
from test_core_build import configure

# Files that are in the wheel and are neither source text of ours nor made by the build.
SHIPPED = {  # name in assets/mnist -> SHA-256
    "LICENSE.txt": "12be39dd1a2427b6ffe4bb1a27e6e2f2906106539f11deef3b9669070b6c2ed4",
    "test_6.png": "f60d0c0794ce1bec292d13b1203b12f29636ad1d3b11c2084af87e65b1edf099",
    "test_9.png": "17a4f9170b550ae72927131fb363a6ab636776e66eaf87ae36824ed5906733c0",
    "train_6.png": "d41521664beb955599eb5836cd8f91e4e7961c8d7b4f73f313feb80e9a41ef3e",
    "train_9.png": "e7cd0455bae4fd705945d8efe7c827a60fc521d3fdaef8be335fa0c1868da4e6",
}


@pytest.fixture
def pins(monkeypatch: pytest.MonkeyPatch) -> object:
    pytest.importorskip("tomllib")  # Python 3.11
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    import pins

    return pins


def test_every_package_a_contributor_gets_is_pinned(pins) -> None:
    """Those that pyproject.toml names, and those that these bring along."""
    named = pins.pinned(pins.FILE.read_text())
    installed = {name: "" for name in pins.needed()}
    assert list(pins.unpinned(named, installed)) == []


def test_what_make_installed_is_what_is_pinned(pins) -> None:
    if not (Path(sys.prefix) / "installed-dev").exists():
        pytest.skip("this environment is not one that `make test` made")
    assert list(pins.unpinned(pins.pinned(pins.FILE.read_text()), pins.needed())) == []


def test_pins_are_exact_and_each_package_has_one(pins) -> None:
    lines = [line for line in pins.FILE.read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in lines)
    assert len(pins.pinned(pins.FILE.read_text())) == len(lines)


def test_a_package_that_is_not_pinned_is_found(pins) -> None:
    found = list(pins.unpinned({"a": "1.0", "torch": "2.13.0"}, {"a": "1.1", "b": "2", "torch": "2.13.0+cpu"}))
    assert found == ["a: 1.1 is installed, 1.0 is pinned", "b: is not in constraints.txt"]


def test_pip_takes_the_pins_where_it_builds_too() -> None:
    """-c alone does not reach the environment in which pip builds the wheel."""
    makefile = (ROOT / "Makefile").read_text()
    assert "PIP    := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt " in makefile
    assert makefile.count("-m pip") == 1


def test_shipped_files_are_the_ones_that_were_looked_at() -> None:
    assets = ROOT / "training" / "gantrt_training" / "assets"
    found = [path for path in assets.rglob("*") if path.is_file()]
    digests = {str(path.relative_to(assets)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}
    assert digests == {f"mnist/{name}": digest for name, digest in SHIPPED.items()}


@pytest.mark.plain_core
@pytest.mark.parametrize("cuda", ["OFF", "ON"])
def test_the_wheel_lists_its_parts(tmp_path: Path, cuda: str) -> None:
    """CycloneDX, in *.dist-info/sboms: what is compiled in and what lies beside it, and no dates."""
    if cuda == "ON" and shutil.which("nvcc") is None:
        pytest.skip("needs nvcc")
    build = tmp_path / "build"
    wheel = ["-DSKBUILD=ON", "-DSKBUILD_STATE=wheel", "-DSKBUILD_PROJECT_VERSION_FULL=9.8.7"]
    done = configure(build, *wheel, f"-DSKBUILD_METADATA_DIR={tmp_path}/metadata", f"-DGANTRT_CUDA={cuda}")
    assert done.returncode == 0, done.stderr
    text = (build / "csrc" / "gantrt.cdx.json").read_text()
    bom = json.loads(text)
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    subject = bom["metadata"]["component"]
    assert (subject["name"], subject["version"], subject["purl"]) == ("gantrt", "9.8.7", "pkg:pypi/gantrt@9.8.7")
    parts = {part["bom-ref"]: part for part in bom["components"]}
    assert list(parts) == ["pybind11", "mnist", *["cudart"] * (cuda == "ON")]  # linked statically, where CUDA is built
    assert all(re.fullmatch(r"\d+\.\d+\.\d+.*", part["version"]) for part in parts.values() if part["type"] != "data")
    assert all(part["licenses"] for part in parts.values())
    assert bom["dependencies"] == [{"ref": "gantrt", "dependsOn": list(parts)}]
    assert not {"serialNumber", "timestamp"} & (set(bom) | set(bom["metadata"]))
    assert str(tmp_path) not in text
    assert str(ROOT) not in text


@pytest.mark.plain_core
def test_the_core_links_nothing_that_the_list_does_not_name() -> None:
    """No library is bundled beside it; what it needs at run time is the system's."""
    needed = subprocess.run(["ldd", _core.__file__], capture_output=True, text=True, check=True).stdout
    names = {line.split()[0].partition(".")[0] for line in needed.splitlines() if line.strip()}
    system = {"linux-vdso", "libstdc++", "libm", "libgcc_s", "libc", "libpthread", "libdl", "librt", "libpython3"}
    assert {name for name in names if not name.startswith("/")} <= system


@pytest.mark.plain_core
def test_the_core_does_not_say_where_it_was_built() -> None:
    assert str(ROOT).encode() not in Path(_core.__file__).read_bytes()
