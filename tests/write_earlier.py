"""Write the files of tests/data/earlier/: what a state of gantrt writes, by its own commands, and the pictures it made.

    git worktree add /tmp/then COMMIT && cd /tmp/then && cmake -S . -B build/dev && cmake --build build/dev
    PYTHONPATH=/tmp/then/python:/tmp/then/training python tests/write_earlier.py tests/data/earlier/COMMIT.tar.xz FAMILY

Of all families it keeps an engine, of DiscoGAN and FAMILY the run, of DiscoGAN also what resuming takes. It is run
by the state whose files they are, so it uses nothing but commands that were there from the first.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import cv2
import numpy as np

SIZE = 32
SMALL = [f"size={SIZE}", "load_scale=1.0", "batch=1", "ngf=1", "ndf=1", "log_every=1", "sample_every=0", "seed=3"]
FAMILIES = {
    "pix2pix": [*SMALL, "lr=0.02"],
    "cyclegan": [*SMALL, "n_blocks=1", "pool_size=2", "lr=0.02"],
    "discogan": [*[key for key in SMALL if "load_scale" not in key], "lr=0.02"],
    "ugatit": [*SMALL, "light=true", "n_blocks=1", "n_dis=3", "lr=0.02"],
}
RESUMABLE = "discogan"  # whose state of the optimisers is kept: no pictures are in it
HALF = ("fp16", "bf16")  # engines of DiscoGAN
STEPS = 3


def main(archive: Path, family: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        work, out = Path(folder, "work"), Path(folder, "out")
        out.mkdir()
        write_pictures(work)
        cv2.imwrite(str(out / "given.png"), picture(100))
        for name in FAMILIES:
            train_and_export(name, work, out)
        keep_run(work / family, out / family, resumable=False)
        keep_run(work / RESUMABLE, out / RESUMABLE, resumable=True)
        with tarfile.open(archive, "x:xz", preset=9) as files:
            for path in sorted(out.rglob("*"), key=lambda path: (path.suffix, path.name)):
                if path.is_file():
                    files.add(path, str(path.relative_to(out)), filter=of_nobody)


def train_and_export(family: str, work: Path, out: Path) -> None:
    """A run, its engine, and the picture the engine makes of given.png, in fp32 under OpenVINO."""
    run = work / family
    data = work / ("pairs" if family == "pix2pix" else "sides")
    gantrt("train", family, "--data", data, "-o", run, "--steps", STEPS, "--device", "cpu", "--set", *FAMILIES[family])
    for precision in ("fp32", *(HALF if family == RESUMABLE else ())):
        name = family if precision == "fp32" else f"{family}.{precision}"
        gantrt("export", run, "-o", out / f"{name}.onnx", "--precision", precision)
        flags = ("--runtime", "openvino", *(("--precision", "fp32") if precision == "fp32" else ()))
        gantrt("translate", "--engine", out / f"{name}.onnx", out / "given.png", "-o", out / f"{name}.png", *flags)


def keep_run(run: Path, out: Path, *, resumable: bool) -> None:
    """The recipe and the newest checkpoint; of the log its lines, which a resumed training goes on with."""
    (out / "checkpoints").mkdir(parents=True)
    recipe = json.loads((run / "recipe.json").read_text())
    recipe["data"] = "pairs" if recipe["family"] == "pix2pix" else "sides"  # a path of the machine it was made on
    (out / "recipe.json").write_text(json.dumps(recipe, indent=2) + "\n")
    newest = max((run / "checkpoints").glob("*.safetensors"))
    shutil.copy(newest, out / "checkpoints")
    if resumable:
        shutil.copy(newest.with_suffix(".state.pt"), out / "checkpoints")
        shutil.copy(run / "log.jsonl", out)


def of_nobody(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    member.mode = 0o644
    return member


def write_pictures(root: Path) -> None:
    """pairs/ and sides/: the pictures of the training, from their numbers alone."""
    for part, seeds in (("train", range(4)), ("test", range(50, 52))):
        for n, seed in enumerate(seeds):
            write(root / "pairs" / part / f"{n}.png", np.hstack([picture(seed), 255 - picture(seed)]))
            write(root / "sides" / f"{part}A" / f"{n}.png", picture(seed))
            write(root / "sides" / f"{part}B" / f"{n}.png", 255 - picture(seed + 10))


def picture(seed: int) -> np.ndarray:
    """(SIZE, SIZE, 3) uint8, smooth, by whole numbers: the same on every machine and with every library."""
    y, x = np.mgrid[:SIZE, :SIZE]
    planes = [(x * (seed % 7 + c) + y * (seed % 5 + 2 * c) + 37 * seed + 11 * c) % 256 for c in range(3)]
    return np.stack(planes, axis=-1).astype(np.uint8)


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels)


def gantrt(*args: object) -> None:
    environment = os.environ | {"GANTRT_CACHE": "off", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "gantrt", *map(str, args)], env=environment, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
