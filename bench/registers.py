"""Registers and shared memory of every CUDA kernel on every GPU it is compiled for; no GPU is needed.

    python bench/registers.py

Spills and local memory need no table: the build refuses them. Writes bench/results/registers.json.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tempfile
from collections import defaultdict
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "bench" / "results" / "registers.json"
ARCHITECTURES = (75, 86, 89, 90, 120)
ENTRY = re.compile(r"Compiling entry function \'(\S+)\' for \'sm_(\d+)\'")
USED = re.compile(r"Used (\d+) registers.*?(?:, (\d+) bytes smem)?$")


def resources(source: Path, architecture: int, folder: str) -> dict[str, dict[str, int]]:
    """Kernel to what ptxas says of it."""
    target = f"arch=compute_{architecture},code=sm_{architecture}"
    strict = "-Xptxas=-v,--warn-on-spills,--warn-on-local-memory-usage,--warning-as-error"  # as csrc/CMakeLists.txt
    command = ["nvcc", "-std=c++17", "-O3", "-gencode", target, strict, "-c", str(source)]
    done = subprocess.run([*command, "-o", f"{folder}/kernel.o"], capture_output=True, text=True, check=True)
    found, name = {}, ""
    for line in done.stderr.splitlines():
        if entry := ENTRY.search(line):
            name = entry[1]
        elif used := USED.search(line):
            found[name] = {"registers": int(used[1]), "shared_bytes": int(used[2] or 0)}
    return found


def readable(mangled: list[str]) -> dict[str, str]:
    """Names of templates as one writes them."""
    done = subprocess.run(["c++filt", "-p", *mangled], capture_output=True, text=True, check=True)
    return {
        name: text.replace("gantrt::(anonymous namespace)::", "").replace("void ", "").replace("(int)", "")
        for name, text in zip(mangled, done.stdout.splitlines(), strict=True)
    }


def main() -> None:
    table: dict[str, dict[str, dict[str, int]]] = defaultdict(dict)
    with tempfile.TemporaryDirectory() as folder:
        for source in sorted((ROOT / "csrc" / "kernels").glob("*.cu")):
            for architecture in ARCHITECTURES:
                kernels = resources(source, architecture, folder)
                names = readable(list(kernels)) if kernels else {}
                for mangled, each in kernels.items():
                    table[names[mangled]][f"sm_{architecture}"] = each
                print(source.name, f"sm_{architecture}", len(kernels), flush=True)
    version = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    report = {
        "what": "ptxas -v; no kernel spills or uses local memory, or it would not compile",
        "command": shlex.join(["python", *sys.argv]),
        "date": date.today().isoformat(),
        "nvcc": version.strip().splitlines()[-1],
        "kernels": dict(sorted(table.items())),
    }
    RESULT.write_text(json.dumps(report, indent=1) + "\n")
    most = max((each["registers"], name) for name, row in table.items() for each in row.values())
    print(f"{len(table)} kernels; at most {most[0]} registers ({most[1]}); {RESULT}")


if __name__ == "__main__":
    main()
