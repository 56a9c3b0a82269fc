"""Is a wheel the same bytes wherever and whenever it is built?

    python bench/wheel.py [--cuda OFF|ON] [-o FILE.json]

The sources git knows are copied to two folders of different names and depth, with other times and another umask, and
built there by pip, each in a build environment of its own. Compared: the two files, and if they differ, which members
do. Says what the list of parts (SBOM) in it holds. Takes two compilations. Writes bench/results/wheel.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from datetime import date
from pathlib import Path
from typing import Any

from machine import cpu_model

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).parent / "results"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cuda", choices=["OFF", "ON"], default="OFF")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "wheel.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        one = built(Path(folder, "one"), args.cuda, 0o022)
        two = built(Path(folder, "a", "longer_name"), args.cuda, 0o077)
        report = {
            "what": "two wheels of the same sources, built in different folders at different times",
            "command": " ".join(["python", *sys.argv]),
            "date": date.today().isoformat(),
            "machine": {"cpu": cpu_model(), "compiler": compiler()},
            "wheels": [one.name, two.name],
            "sha256": [sha256(one.read_bytes()), sha256(two.read_bytes())],
            "bytes": one.stat().st_size,
            "identical": one.name == two.name and one.read_bytes() == two.read_bytes(),
            "members_that_differ": differing(one, two),
            "sbom": {part["name"]: part["version"] for part in sbom(one)["components"]},
        }
    args.output.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    return 0 if report["identical"] else 1


def built(folder: Path, cuda: str, umask: int) -> Path:
    """The wheel of a fresh copy of the sources in `folder`."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in listed:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file():
            shutil.copyfile(ROOT / name, folder / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", "dist", "-c", "constraints.txt", "."]
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "SOURCE_DATE_EPOCH")}
    environment |= {"GANTRT_CUDA": cuda, "PIP_CONSTRAINT": str(folder / "constraints.txt")}
    subprocess.run(command, cwd=folder, env=environment, check=True, umask=umask)
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


def differing(one: Path, two: Path) -> list[str]:
    with zipfile.ZipFile(one) as first, zipfile.ZipFile(two) as second:
        names = sorted({*first.namelist(), *second.namelist()})
        both = set(first.namelist()) & set(second.namelist())
        return [name for name in names if name not in both or first.read(name) != second.read(name)]


def sbom(wheel: Path) -> dict[str, Any]:
    with zipfile.ZipFile(wheel) as file:
        (name,) = [name for name in file.namelist() if ".dist-info/sboms/" in name]
        found: dict[str, Any] = json.loads(file.read(name))
        return found


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def compiler() -> str:
    return subprocess.run(["c++", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


if __name__ == "__main__":
    raise SystemExit(main())
