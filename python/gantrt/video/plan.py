"""What is to be translated into what: the inputs and the output of a command line, as a list of jobs."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import GantrtError, UnsupportedInput, UsageError
from . import NULL, VIDEO_FORMATS, is_folder
from .images import READ_SUFFIXES, SUFFIXES, natural_order, picture_format

_CLIP_SUFFIXES = (*VIDEO_FORMATS, ".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv", ".3gp")


@dataclass(frozen=True)
class Job:
    """One thing to make."""

    inputs: tuple[Path, ...]  # one file; all the pictures where they become one clip
    output: str | Path  # a file, a folder (ending in a slash) for the frames of a clip, or NULL
    still: bool  # picture to picture

    @property
    def makes_frames(self) -> bool:
        """Whether the output is a folder of pictures."""
        return not self.still and str(self.output).endswith("/")


def make_plan(inputs: Sequence[str], output: str) -> list[Job]:
    """The jobs, in natural order.

    A picture file takes one picture; a clip takes one clip, or pictures; a folder takes everything under its own name,
    or the frames of one clip that is named alone.
    Raises UnsupportedInput for what is not there, UsageError for what cannot become the output.
    """
    items = _find(inputs, output)
    pictures = [item for item in items if item.is_picture]
    suffix = Path(output).suffix.lower()
    if output == NULL:
        return [Job((item.path,), NULL, still=item.is_picture and not item.is_gif) for item in items]
    if is_folder(output):
        return _into_folder(items, Path(output))
    if suffix in VIDEO_FORMATS:
        if len(items) == 1 and (not pictures or items[0].is_gif):
            return [Job((items[0].path,), Path(output), still=False)]
        if len(pictures) == len(items):
            return [Job(tuple(item.path for item in pictures), Path(output), still=False)]
        raise UsageError(f"{output}: one clip or several pictures make a clip, not several clips; name a folder")
    if suffix in SUFFIXES:
        if len(items) == 1 and pictures:
            return [Job((items[0].path,), Path(output), still=True)]
        raise UsageError(
            f"{output}: is one picture, and INPUT is more; name a folder or a clip ({', '.join(VIDEO_FORMATS)})"
        )
    raise UsageError(
        f"{output}: is not written; there are {', '.join((*VIDEO_FORMATS, *SUFFIXES))}, folders and {NULL}"
    )


def check_outputs(jobs: Iterable[Job], *, overwrite: bool) -> None:
    """Refuse, before any work, two jobs for one output, and without `overwrite` outputs that exist."""
    made: dict[Path, Job] = {}
    for job in jobs:
        if job.output == NULL:
            continue
        output = Path(job.output)
        if other := made.get(output):
            raise UsageError(f"{output}: both {other.inputs[0]} and {job.inputs[0]} would become it; rename one")
        made[output] = job
        if output.exists() and not overwrite and not job.makes_frames:
            raise GantrtError(f"{output}: exists already; give --overwrite to replace it")


@dataclass(frozen=True)
class _Item:
    path: Path
    name: Path  # relative to the folder or glob it was found by
    alone: bool = False  # named itself

    @property
    def is_gif(self) -> bool:
        return picture_format(self.path) == "gif"

    @property
    def is_picture(self) -> bool:
        """By content; by suffix where the content is damaged, so that the reader can say how."""
        return picture_format(self.path) is not None or self.path.suffix.lower() in READ_SUFFIXES


def _find(inputs: Sequence[str], output: str) -> list[_Item]:
    items: list[_Item] = []
    for spec in inputs:
        path = Path(spec)
        if path.is_dir():
            found = _media_below(path, Path(output))
            items += [_Item(file, file.relative_to(path)) for file in found]
        elif path.exists():
            found = [path]
            items.append(_Item(path, Path(path.name), alone=True))
        else:
            found = natural_order(Path(name) for name in glob.iglob(spec, recursive=True) if Path(name).is_file())
            root = Path(re.split(r"[*?\[]", spec)[0] + "x").parent  # the folders before the first wildcard
            items += [_Item(file, file.relative_to(root)) for file in found]
        if not found:
            raise UnsupportedInput(f"{spec}: {'no pictures or clips in it' if path.is_dir() else 'no such file'}")
    return items


def _media_below(folder: Path, output: Path) -> list[Path]:
    """Pictures and clips at any depth; neither hidden ones nor those an earlier run wrote into a folder below."""
    found = []
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        inside_output = output.resolve() in path.resolve().parents and output.resolve() != folder.resolve()
        known = path.suffix.lower() in (*READ_SUFFIXES, *_CLIP_SUFFIXES) or picture_format(path) is not None
        if path.is_file() and known and not hidden and not inside_output:
            found.append(path)
    return natural_order(found)


def _into_folder(items: list[_Item], folder: Path) -> list[Job]:
    if len(items) == 1 and items[0].alone and not items[0].is_picture:
        return [Job((items[0].path,), f"{folder}/", still=False)]
    jobs = []
    for item in items:
        written = SUFFIXES if item.is_picture else tuple(VIDEO_FORMATS)
        keeps = item.name.suffix.lower() in written
        name = item.name if keeps else item.name.with_suffix(".png" if item.is_picture else ".mp4")
        jobs.append(Job((item.path,), folder / name, still=item.is_picture))
    return jobs
