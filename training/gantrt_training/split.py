"""Side-by-side pictures become folders of A and B. Needs OpenCV, not torch."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gantrt.atomic import scratch_folder
from gantrt.errors import GantrtError, UnsupportedInput, UsageError
from gantrt.progress import Progress

from .pictures import halves, list_pictures, read_as_stored, write_as_stored

_PARTS = ("train", "val", "test")


def split(
    source: Path, output: Path, *, swap: bool = False, overwrite: bool = False, progress: bool = False
) -> dict[str, int]:
    """Cut the pictures in `source`, or in its folders train, val and test, down the middle; PNGs, without loss.

    The left halves go to `output`/trainA, the right ones to trainB (valA, …); `swap` exchanges them.
    Returns how many pictures were split, by part. All folders appear at the end, or none does.
    Raises UnsupportedInput, which names the file, for what cannot be read or is of odd width.
    """
    parts = {part: source / part for part in _PARTS if (source / part).is_dir()} or {"train": source}
    found = {part: list_pictures(folder) for part, folder in parts.items()}
    if not any(found.values()):
        fault = "has no pictures" if source.is_dir() else "is no folder" if source.exists() else "does not exist"
        raise UnsupportedInput(f"split: {source} {fault}; give a folder of side-by-side pictures, or of train/, test/")
    targets = [output / f"{part}{side}" for part, pictures in found.items() if pictures for side in "AB"]
    taken = [str(target) for target in targets if target.exists()]
    if taken and not overwrite:
        raise UsageError(f"split: {taken[0]} exists already; give --overwrite to replace it")
    for part, pictures in found.items():
        _refuse_twins(parts[part], pictures)
    try:
        output.mkdir(parents=True, exist_ok=True)
        with scratch_folder(".gantrt-split-", output) as draft:
            total = sum(map(len, found.values()))
            with Progress(total, "pictures", label="split", enabled=progress) as bar:
                for part, pictures in found.items():
                    _split_part(parts[part], pictures, [draft / f"{part}{s}" for s in "AB"], swap, bar)
            for target in targets:
                shutil.rmtree(target, ignore_errors=True)
                (draft / target.name).rename(target)
    except OSError as error:
        raise GantrtError(f"split: {output} cannot be written ({error.strerror or error})") from error
    finally:
        with contextlib.suppress(OSError):
            output.rmdir()  # an empty folder, where nothing came of it
    return {part: len(pictures) for part, pictures in found.items() if pictures}


def _split_part(folder: Path, pictures: Sequence[Path], sides: Sequence[Path], swap: bool, bar: Progress) -> None:
    def one(path: Path) -> None:
        picture = read_as_stored(path)
        pair = halves(picture, path)
        for side, half in zip(sides, reversed(pair) if swap else pair, strict=True):
            target = side / path.relative_to(folder).with_suffix(".png")
            target.parent.mkdir(parents=True, exist_ok=True)
            if half.dtype.itemsize > 2 or not write_as_stored(target, half):
                raise UnsupportedInput(f"{path}: {half.dtype} values do not fit into a PNG; convert it to 8 or 16 bits")

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for _ in pool.map(one, pictures):
                bar.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _refuse_twins(folder: Path, pictures: Sequence[Path]) -> None:
    seen: dict[Path, Path] = {}
    for path in pictures:
        twin = seen.setdefault(path.relative_to(folder).with_suffix(""), path)
        if twin != path:
            raise UnsupportedInput(f"split: {twin} and {path} would become the same PNG; rename one of them")
