"""Picture files: which of a folder's files they are, and what is in them. Needs OpenCV, not torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from gantrt.errors import UnsupportedInput
from numpy.typing import NDArray

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # its decoders chat; our error names the file

Picture = NDArray[np.uint8]

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".jp2", ".pgm", ".ppm", ".pnm")
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"BM", b"GIF8", b"II*\0", b"MM\0*", b"RIFF", b"P4", b"P5", b"P6")


def list_pictures(folder: Path) -> list[Path]:
    """All picture files within `folder` and its subfolders, in order of their names; hidden ones are left out.

    A suffix we know makes a file a picture, and so does how it begins: data sets without suffixes exist.
    """
    files = (path for path in folder.rglob("*") if path.is_file())
    visible = (path for path in files if not any(part[0] == "." for part in path.relative_to(folder).parts))
    return sorted(path for path in visible if path.suffix.lower() in _SUFFIXES or _begins_as_picture(path))


def read_picture(path: Path, channels: int) -> Picture:
    """(h, w, channels) uint8, RGB for 3 channels, grey for 1; turned upright as its EXIF data say.

    16-bit values are scaled to 8 bits; alpha is dropped, colours stay as they are stored.
    Raises UnsupportedInput, which names the file, if it is damaged or no picture.
    """
    flags = cv2.IMREAD_ANYDEPTH | (cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR)
    picture: NDArray[Any] = _decode(path, flags)
    if picture.dtype == np.uint16:
        picture = ((picture.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    elif picture.dtype != np.uint8:
        raise UnsupportedInput(f"{path}: holds {picture.dtype} values; save it with 8 or 16 bits per channel")
    if channels == 1:
        return picture[..., None] if picture.ndim == 2 else picture
    return np.ascontiguousarray(picture[..., ::-1])


def read_as_stored(path: Path) -> NDArray[Any]:
    """(h, w) or (h, w, 3 or 4) in OpenCV's order, with the bits, greys and alpha of the file; turned upright."""
    upright = _decode(path, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)
    if path.suffix.lower() in {".jpg", ".jpeg"}:
        return upright
    stored = _decode(path, cv2.IMREAD_UNCHANGED)  # the only way to alpha; leaves EXIF aside
    return stored if stored.ndim == 3 and stored.shape[2] == 4 else upright


def halves(picture: NDArray[Any], path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """The left and the right half of a side-by-side picture, as views.

    Raises UnsupportedInput, which names the file, if its width is odd.
    """
    width = picture.shape[1]
    if width % 2:
        raise UnsupportedInput(
            f"{path}: {width} pixels wide, which is odd: it is no pair of pictures side by side; crop or remove it"
        )
    return picture[:, : width // 2], picture[:, width // 2 :]


def _decode(path: Path, flags: int) -> NDArray[Any]:
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise UnsupportedInput(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        picture: NDArray[Any] | None = cv2.imdecode(data, flags) if data.size else None
    except cv2.error as error:
        raise UnsupportedInput(f"{path}: cannot be decoded ({error.err}); replace or remove it") from error
    if picture is None:
        raise UnsupportedInput(f"{path}: is damaged, or no picture; replace or remove it")
    return picture


def _begins_as_picture(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(8).startswith(_MAGIC)
