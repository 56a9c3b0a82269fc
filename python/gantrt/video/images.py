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
from .headers import SNIFF_BYTES, Header, read_header, sniff
from .orientation import EXIF, UPRIGHT

log = logging.getLogger("gantrt")

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")  # that we write
READ_SUFFIXES = (*SUFFIXES, ".gif")
MAX_PIXELS = 256 << 20  # more is refused before it is decoded: a few bytes can claim gigabytes
DEFAULT_FPS = Fraction(25)

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


def find_pictures(spec: str | Path) -> list[Path]:
    """The pictures in a folder (not below it) or of a glob, in natural order."""
    found = Path(spec).iterdir() if Path(spec).is_dir() else map(Path, glob.iglob(str(spec), recursive=True))
    return natural_order(path for path in found if path.suffix.lower() in READ_SUFFIXES or picture_format(path))


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


class PictureFolder:
    """A FrameSink: one PNG per frame, 000001.png and on. Each is whole; those written stay, whatever comes."""

    def __init__(self, path: Path, options: SinkOptions) -> None:
        self._path = path
        taken = sorted(path.glob("[0-9]" * 6 + ".png")) if path.is_dir() else []
        if taken and not options.overwrite:
            raise GantrtError(f"{taken[0]}: exists already; give --overwrite to replace it")
        for old in taken:  # a shorter clip must not end in the pictures of a longer one
            old.unlink()

    def write(self, frame: Frame) -> None:
        write_picture(self._path / f"{frame.index + 1:06}.png", Picture(frame.image))

    def close(self, *, complete: bool = True) -> None: ...
    def abort(self) -> None: ...


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
