"""Pictures in files: read upright as RGB with their alpha kept aside, written whole or not at all."""

from __future__ import annotations

import glob
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..atomic import atomic_path
from ..errors import GantrtError, UnsupportedInput, UsageError
from . import Frame, SinkOptions
from .headers import SNIFF_BYTES, Header, gif_pictures, read_header, sniff
from .orientation import EXIF, UPRIGHT

log = logging.getLogger("gantrt")

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")  # that we write
READ_SUFFIXES = (*SUFFIXES, ".gif")
MAX_PIXELS = 256 << 20  # more is refused before it is decoded: a few bytes can claim gigabytes
DEFAULT_FPS = Fraction(25)

_ACTL_WITHIN = 4096  # bytes: an APNG says so before its first picture
_NUMBER = re.compile(r"%(?:0(\d))?d")  # %d, %05d; in 50%_off.png there is none
_WITH_ALPHA = (".png", ".webp", ".tif", ".tiff")
_QUALITY = {
    ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 95],
    ".jpeg": [cv2.IMWRITE_JPEG_QUALITY, 95],
    ".webp": [cv2.IMWRITE_WEBP_QUALITY, 95],
}


@dataclass(frozen=True, eq=False)
class Picture:
    """A still picture, upright."""

    image: NDArray[np.uint8]  # (H, W, 3) RGB, C-contiguous
    alpha: NDArray[np.uint8] | None = None  # (H, W)


def read_picture(path: str | Path) -> Picture:
    """Read a PNG, JPEG, WebP, BMP, TIFF or (first frame of a) GIF, whatever its suffix says.

    Grey, palette, CMYK and 16-bit pictures become 8-bit RGB, and the EXIF orientation is applied.
    Raises UnsupportedInput if it is missing, damaged, cut off, or claims more than MAX_PIXELS.
    """
    return decode_picture(_read(path), path)


def decode_picture(data: bytes, name: str | Path, max_pixels: int = MAX_PIXELS) -> Picture:
    """The same of a whole file in memory; `name` is what errors call it."""
    header = _header(name, data, max_pixels)
    try:
        stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise UnsupportedInput(f"{name}: this {header.format.upper()} cannot be decoded ({error.err})") from error
    if stored is None or stored.dtype not in (np.uint8, np.uint16):
        reason = "is damaged or cut off" if stored is None else f"holds {stored.dtype} values; 8 and 16 bit are read"
        raise UnsupportedInput(f"{name}: this {header.format.upper()} {reason}")
    return _upright(stored, header)


def write_picture(path: str | Path, picture: Picture, *, overwrite: bool = True) -> None:
    """Write a picture in the format of the suffix; alpha goes along where the format has it.

    Raises GantrtError if it cannot be written, and leaves nothing half-written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"{path}: a picture is written as {', '.join(SUFFIXES)}")
    if picture.alpha is not None and suffix not in _WITH_ALPHA:
        log.debug("%s: %s has no transparency, so it is dropped", path, suffix)
    encoded = encode_picture(picture, suffix)
    with atomic_path(path, overwrite=overwrite) as temporary:
        try:
            temporary.write_bytes(encoded)
        except OSError as error:
            raise GantrtError(f"{path}: cannot be written ({error.strerror or error})") from error


def encode_picture(picture: Picture, suffix: str) -> bytes:
    """The file `write_picture` writes; `suffix` is one of SUFFIXES."""
    image = cv2.cvtColor(picture.image, cv2.COLOR_RGB2BGR)
    if picture.alpha is not None and suffix in _WITH_ALPHA:
        image = np.dstack([image, picture.alpha])
    encoded: bytes = cv2.imencode(suffix, image, _QUALITY.get(suffix, []))[1].tobytes()
    return encoded


def picture_format(path: str | Path) -> str | None:
    """What the first bytes of a file say: "png", "jpeg", ...; None if it is no picture, or cannot be read."""
    try:
        with open(path, "rb") as file:
            return sniff(file.read(SNIFF_BYTES))
    except OSError:
        return None


def natural_key(path: str | Path) -> list[tuple[str, int]]:
    """Sorts 2.png before 10.png."""
    return [(text.casefold(), int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", str(path))]


def natural_order(paths: Iterable[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: (natural_key(path), str(path)))


def is_animated(path: str | Path) -> bool:
    """Whether it is a GIF of more than one picture, or an APNG."""
    form = picture_format(path)
    if form == "png":
        return b"acTL" in _read(path)[:_ACTL_WITHIN]
    return form == "gif" and gif_pictures(_read(path), 2) > 1


def is_pattern(spec: str | Path) -> bool:
    """Whether it names numbered pictures: one %d or %05d in the file's name, which ends as pictures do."""
    name = Path(spec).name
    return len(_NUMBER.findall(name)) == 1 and Path(name).suffix.lower() in SUFFIXES


def find_pictures(spec: str | Path) -> list[Path]:
    """The pictures in a folder (not below it), of a glob or of a `%05d` pattern, in natural order."""
    path = Path(spec)
    if is_pattern(spec) and not path.exists():
        return _numbered(path)
    found = path.iterdir() if path.is_dir() else map(Path, glob.iglob(str(spec), recursive=True))
    return natural_order(path for path in found if path.suffix.lower() in READ_SUFFIXES or picture_format(path))


def _numbered(pattern: Path) -> list[Path]:
    """The files of a pattern, by number, from the lowest there is; numbers that are left out are said."""
    before, width, after = _NUMBER.split(pattern.name)
    digits = rf"\d{{{int(width)},}}" if width else r"\d+"
    fitting = re.compile(f"{re.escape(before)}({digits}){re.escape(after)}")
    found = {}
    for path in pattern.parent.iterdir() if pattern.parent.is_dir() else ():
        if match := fitting.fullmatch(path.name):
            found[int(match[1])] = path
    numbers = sorted(found)
    if numbers and (missing := numbers[-1] - numbers[0] + 1 - len(numbers)):
        log.warning("%s: %d numbers between %d and %d are missing", pattern, missing, numbers[0], numbers[-1])
    return [found[number] for number in numbers]


class Pictures:
    """A FrameSource: pictures of one size, `fps` a second. Raises UnsupportedInput if they differ in size."""

    frames_estimated = False

    def __init__(self, paths: Sequence[Path], fps: Fraction | None = None) -> None:
        self._paths = paths
        self.rate = fps or DEFAULT_FPS
        self.time_base = 1 / self.rate
        self.frames = len(paths)
        self.width, self.height = _size(paths[0])
        for path in paths[1:]:
            if (size := _size(path)) != (self.width, self.height):
                raise UnsupportedInput(
                    f"{path}: is {size[0]}x{size[1]} and {paths[0].name} is {self.width}x{self.height}; "
                    "the frames of a clip have one size"
                )

    def __iter__(self) -> Iterator[Frame]:
        for index, path in enumerate(self._paths):
            yield Frame(read_picture(path).image, index, index, self.time_base, 1)

    def close(self) -> None: ...

    def __enter__(self) -> Pictures:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class PictureSequence:
    """A FrameSink: one picture per frame, numbered from 1. Each is whole; those written stay, whatever comes."""

    def __init__(self, pattern: Path, options: SinkOptions) -> None:
        """`pattern` is as `is_pattern` says. Raises GantrtError if pictures of it exist, without overwrite."""
        self._folder, self._name = pattern.parent, pattern.name
        taken = _numbered(pattern)
        if taken and not options.overwrite:
            raise GantrtError(f"{taken[0]}: exists already; give --overwrite to replace it")
        for old in taken:  # a shorter clip must not end in the pictures of a longer one
            old.unlink()

    def write(self, frame: Frame) -> None:
        write_picture(self._folder / (self._name % (frame.index + 1)), Picture(frame.image))

    def close(self, *, complete: bool = True) -> None: ...
    def abort(self) -> None: ...


class PictureFolder(PictureSequence):
    """A FrameSink: 000001.png and on."""

    def __init__(self, path: Path, options: SinkOptions) -> None:
        super().__init__(path / "%06d.png", options)


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UnsupportedInput(f"{path}: {(error.strerror or str(error)).lower()}") from error


def _header(path: str | Path, data: bytes, max_pixels: int = MAX_PIXELS) -> Header:
    try:
        header = read_header(data)
    except ValueError as error:
        raise UnsupportedInput(f"{path}: {error}") from error
    if header.width * header.height > max_pixels:
        raise UnsupportedInput(
            f"{path}: claims {header.width}x{header.height}, more than the {max_pixels / 1e6:.3g} megapixels we decode"
        )
    return header


def _size(path: Path) -> tuple[int, int]:
    """(width, height) as shown, without decoding."""
    header = _header(path, _read(path))
    size = header.width, header.height
    return size[::-1] if EXIF[header.orientation].transpose else size


def _upright(stored: NDArray[Any], header: Header) -> Picture:
    """From OpenCV's (H, W) or (H, W, 3 BGR or 4 BGRA), 8 or 16 bit, as stored."""
    if stored.dtype == np.uint16:
        stored = ((stored.astype(np.uint32) + 128) // 257).astype(np.uint8)
    channels = stored.reshape(*stored.shape[:2], -1)
    orientation = UPRIGHT if header.format == "tiff" else EXIF[header.orientation]  # OpenCV turns TIFFs, always
    image = channels[..., 2::-1] if channels.shape[2] > 2 else np.repeat(channels[..., :1], 3, axis=2)
    alpha = orientation.apply(channels[..., 3:4])[..., 0] if channels.shape[2] == 4 else None
    return Picture(orientation.apply(image), alpha)
