"""What is to be translated into what: the inputs and the output of a command line, as a list of jobs."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import GantrtError, UnsupportedInput, UsageError
from . import CLIP_FORMATS, NULL, VIDEO_FORMATS, is_folder, schemes
from .images import READ_SUFFIXES, SUFFIXES, find_pictures, is_animated, is_pattern, natural_order, picture_format

_CLIP_SUFFIXES = (
    *CLIP_FORMATS,
    ".y4m",
    ".avi",
    ".ts",
    ".m2ts",
    ".mts",
    ".mpg",
    ".mpeg",
    ".wmv",
    ".flv",
    ".ogv",
    ".3gp",
)


@dataclass(frozen=True)
class Job:
    """One thing to make."""

    inputs: tuple[Path | str, ...]  # one file, one spec of a scheme; all the pictures where they become one clip
    output: str | Path  # a file (Path), a folder (ending in a slash) or pattern for the frames of a clip, or a scheme's
    still: bool  # picture to picture

    @property
    def makes_frames(self) -> bool:
        """Whether the output is many pictures."""
        return not self.still and (str(self.output).endswith("/") or _is_pattern(self.output))


def make_plan(inputs: Sequence[str], output: str) -> list[Job]:
    """The jobs, in natural order.

    A picture file takes one picture; a clip, an animation, numbered pictures and what shows frames take one clip,
    one live source or pictures; a folder takes everything under its own name, or the frames of one clip that is
    named alone.
    Raises UnsupportedInput for what is not there, UsageError for what cannot become the output.
    """
    shows = schemes.find(output, "sink") if output != NULL else None
    live = [spec for spec in inputs if not Path(spec).exists() and schemes.find(spec, "source") is not None]
    if live:
        return [_from_scheme(live[0], inputs, output, shows is not None)]
    items = _find(inputs, output)
    pictures = [item for item in items if item.is_picture]
    suffix = Path(output).suffix.lower()
    if output == NULL:
        return [Job((item.path,), NULL, still=item.is_picture and not item.is_clip) for item in items]
    if shows is None and is_folder(output):
        return _into_folder(items, Path(output))
    if suffix in SUFFIXES and not _is_pattern(output):
        if len(items) == 1 and pictures:
            return [Job((items[0].path,), Path(output), still=True)]
        raise UsageError(
            f"{output}: is one picture, and INPUT is more; name a folder, %05d{suffix} or a clip "
            f"({', '.join(CLIP_FORMATS)})"
        )
    if shows is None and not _is_pattern(output) and suffix not in CLIP_FORMATS:
        raise UsageError(
            f"{output}: is not written; there are {', '.join((*CLIP_FORMATS, *SUFFIXES))}, folders and "
            f"{schemes.usage('sink')}"
        )
    target = output if shows is not None else Path(output)
    if len(items) == 1 and (not pictures or items[0].is_clip):
        return [Job((items[0].path,), target, still=False)]
    if len(pictures) == len(items):
        return [Job(tuple(item.path for item in pictures), target, still=False)]
    raise UsageError(f"{output}: one clip or several pictures make a clip, not several clips; name a folder")


def _from_scheme(spec: str, inputs: Sequence[str], output: str, shows: bool) -> Job:
    if len(inputs) > 1:
        raise UsageError(f"{spec}: is translated alone; give the other inputs to another command")
    suffix = Path(output).suffix.lower()
    if shows or output == NULL:
        return Job((spec,), output, still=False)
    if is_folder(output):
        return Job((spec,), f"{Path(output)}/", still=False)
    if suffix in CLIP_FORMATS or _is_pattern(output):
        return Job((spec,), Path(output), still=False)
    raise UsageError(f"{output}: takes one picture, and {spec} is many; name a clip, %05d.png or a folder")


def check_outputs(jobs: Iterable[Job], *, overwrite: bool) -> None:
    """Refuse, before any work, two jobs for one output, and without `overwrite` outputs that exist."""
    made: dict[Path, Job] = {}
    for job in jobs:
        if isinstance(job.output, str) and not job.makes_frames:
            continue
        output = Path(job.output)
        if other := made.get(output):
            raise UsageError(f"{output}: both {other.inputs[0]} and {job.inputs[0]} would become it; rename one")
        made[output] = job
        if output.exists() and not overwrite and not job.makes_frames:
            raise GantrtError(f"{output}: exists already; give --overwrite to replace it")


def _is_pattern(output: str | Path) -> bool:
    """A file of that very name is that file."""
    return is_pattern(output) and not Path(output).is_file()


@dataclass(frozen=True)
class _Item:
    path: Path
    name: Path  # relative to the folder or glob it was found by
    alone: bool = False  # named itself

    @property
    def is_clip(self) -> bool:
        """Whether it is a picture that moves."""
        return is_animated(self.path)

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
        elif is_pattern(spec):
            found = find_pictures(spec)
            items += [_Item(file, Path(file.name)) for file in found]
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
    if len(items) == 1 and items[0].alone and (items[0].is_clip or not items[0].is_picture):
        return [Job((items[0].path,), f"{folder}/", still=False)]
    jobs = []
    for item in items:
        still = item.is_picture and not item.is_clip
        usual = ".png" if still else ".gif" if item.is_clip else ".mp4"
        keeps = item.name.suffix.lower() in (SUFFIXES if still else CLIP_FORMATS if item.is_clip else VIDEO_FORMATS)
        jobs.append(Job((item.path,), folder / (item.name if keeps else item.name.with_suffix(usual)), still=still))
    return jobs
