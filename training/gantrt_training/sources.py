"""Where the pictures of a training lie: folders of each side, side-by-side pictures, or lists of either."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

from gantrt.errors import UnsupportedInput

from .pictures import list_pictures

log = logging.getLogger("gantrt")

_EXPECTED = (
    "expected trainA/ and trainB/, or train/ with pictures that show A left and B right, or lists of them: "
    "trainA.txt and trainB.txt, or train.txt"
)
_LIST = ".txt"


class Source(NamedTuple):
    """Where one picture lies: a file, or the left (0) or right (1) half of one."""

    path: Path
    name: str  # within its folder, without suffix: partners share it
    half: int | None = None


class Found(NamedTuple):
    """The pictures of both sides, and how they lie: partners are in one row if `matched`, or share their names."""

    a: list[Source]
    b: list[Source]
    layout: str
    matched: bool


def find(root: Path) -> tuple[Found, Found | None]:
    """The training and the test pictures (test, or else val) in a folder, or those in a list.

    Raises UnsupportedInput, which says what was expected, if there are none to train with.
    """
    if root.is_file() and root.suffix == _LIST:
        return _of_list(root), None
    train = _part(root, "train")
    if train is None:
        raise UnsupportedInput(f"train: {root} {_fault(root)}; {_EXPECTED}")
    test = find_test(root)
    return train, test[0] if test else None


def find_test(root: Path) -> tuple[Found, str] | None:
    """The test pictures in a folder, and the name of their part: test, or else val; None if there are none."""
    for name in ("test", "val"):
        if found := _part(root, name):
            return found, name
    return None


def pair(found: Found) -> Found:
    """The same with A's and B's partners in one row. Raises UnsupportedInput if pairs are not complete."""
    if found.matched:
        if len(found.a) != len(found.b):
            raise UnsupportedInput(
                f"train: the lists have {len(found.a)} pictures of A and {len(found.b)} of B; "
                "line by line they are to be pairs"
            )
        return found
    first, second = (_by_name(side) for side in (found.a, found.b))
    alone = sorted(first.keys() ^ second.keys())
    if alone:
        only = first.get(alone[0]) or second[alone[0]]
        raise UnsupportedInput(
            f"train: {len(alone)} pictures have no partner of the same name on the other side, "
            f"the first is {only.path}; a paired family needs both, or train with an unpaired one"
        )
    names = sorted(first)
    return found._replace(a=[first[name] for name in names], b=[second[name] for name in names], matched=True)


def _part(root: Path, part: str) -> Found | None:
    """The pictures of `part` (train, test or val): folders before lists."""
    a, b, whole = root / f"{part}A", root / f"{part}B", root / part
    lists = [root / f"{name}{_LIST}" for name in (f"{part}A", f"{part}B", part)]
    found = None
    if a.is_dir() and b.is_dir() and (left := _sources(a)) and (right := _sources(b)):
        found = Found(left, right, "folders", matched=False)
    elif whole.is_dir() and (both := _sources(whole)):
        found = _side_by_side(both)
    if found:
        for unused in filter(Path.is_file, lists):
            log.info("train: %s is not used, because there are folders of pictures beside it", unused)
        return found
    if lists[0].is_file() and lists[1].is_file():
        left, right = (_listed(path) for path in lists[:2])
        return Found(left, right, "lists", matched=True)
    return _of_list(lists[2]) if lists[2].is_file() else None


def _of_list(path: Path) -> Found:
    """A list of pairs, A and B with a tab between, or of side-by-side pictures."""
    rows = _lines(path)
    paired = [number for number, words in rows if len(words) == 2]
    odd = next((n for n, words in rows if len(words) > 2 or (len(words) == 2) != bool(paired)), None)
    if odd is not None:
        raise UnsupportedInput(
            f"{path}, line {odd}: every line holds A and B with a tab between, or every line one side-by-side picture"
        )
    sides = [[_source(path, words[side]) for _, words in rows] for side in range(2 if paired else 1)]
    if paired:
        return Found(sides[0], sides[1], "list of pairs", matched=True)
    return _side_by_side(sides[0])._replace(layout="list, side by side")


def _listed(path: Path) -> list[Source]:
    """A list of one side's pictures, one a line."""
    rows = _lines(path)
    odd = next((number for number, words in rows if len(words) != 1), None)
    if odd is not None:
        raise UnsupportedInput(f"{path}, line {odd}: holds several pictures; pairs belong into train.txt")
    return [_source(path, words[0]) for _, words in rows]


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """Number and tab-separated words of each line that is neither empty nor a # comment. Never empty."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UnsupportedInput(f"{path}: is no list in UTF-8 ({error})") from error
    numbered = enumerate(text.splitlines(), 1)
    rows = [(n, [word.strip() for word in line.split("\t")]) for n, line in numbered if line.strip()]
    rows = [(n, words) for n, words in rows if not words[0].startswith("#")]
    if not rows:
        raise UnsupportedInput(f"{path}: lists no pictures; write one a line, or A and B with a tab between")
    return rows


def _source(list_: Path, word: str) -> Source:
    """A path in a list is relative to the list."""
    return Source(list_.parent / word, word)


def _side_by_side(sources: list[Source]) -> Found:
    left, right = ([source._replace(half=half) for source in sources] for half in (0, 1))
    return Found(left, right, "side by side", matched=True)


def _sources(folder: Path) -> list[Source]:
    return [Source(path, path.relative_to(folder).with_suffix("").as_posix()) for path in list_pictures(folder)]


def _fault(root: Path) -> str:
    if not root.exists():
        return "does not exist"
    if not root.is_dir():
        return f"is neither a folder nor a list ({_LIST})"
    there = [name for name in ("trainA", "trainB", "train") if (root / name).is_dir()]
    empty = [name for name in there if not list_pictures(root / name)]
    if empty:
        return f"has no pictures in {' and '.join(empty)}"
    return f"has {there[0]} only" if there else "has no training pictures"


def _by_name(side: list[Source]) -> dict[str, Source]:
    named: dict[str, Source] = {}
    for source in side:
        if source.name in named:
            twin = named[source.name].path
            raise UnsupportedInput(f"train: {twin} and {source.path} have the same name; keep one of them")
        named[source.name] = source
    return named
