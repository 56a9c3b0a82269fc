"""Picture files: which of a folder's files they are, and what is in them. Needs OpenCV, not torch.

Grey and colour pictures are OpenCV's; arrays of any number of channels are read by stacks.py. How a file begins says
what it is, not its suffix.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from gantrt.errors import UnsupportedInput
from numpy.typing import NDArray

from .stacks import ARRAYS, TIFFS, read_array, read_tiff

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # its decoders chat; our error names the file

log = logging.getLogger("gantrt")

Picture = NDArray[Any]  # of uint8, or of uint16 where 16 bits are kept
Bits = Literal[8, 16]

_SUFFIXES = {
    *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".jp2", ".pgm", ".ppm", ".pnm"),
    *(".npy", ".npz"),
}
_JPEG = b"\xff\xd8\xff"
_MAGIC = (_JPEG, b"\x89PNG\r\n", b"BM", b"GIF8", *TIFFS, b"RIFF", b"P4", b"P5", b"P6", b"\x93NUMPY")
_DEEPEST = {8: 255, 16: 65535}  # the largest value that so many bits hold


def list_pictures(folder: Path) -> list[Path]:
    """All picture files within `folder` and its subfolders, in order of their names; hidden ones are left out.

    A suffix we know makes a file a picture, and so does how it begins: data sets without suffixes exist.
    """
    files = (path for path in folder.rglob("*") if path.is_file())
    visible = (path for path in files if not any(part[0] == "." for part in path.relative_to(folder).parts))
    return sorted(path for path in visible if path.suffix.lower() in _SUFFIXES or _begins_as_picture(path))


def read_picture(path: Path, channels: int, bits: Bits = 8, white: int = 65535) -> Picture:
    """(h, w, channels), uint8 or with bits=16 uint16; upright as EXIF data say.

    channels  1: grey; 3: RGB, alpha dropped, colours as they are stored; 4: RGBA; any other number, and any array or
              many-layered TIFF: exactly what the file holds, as (h, w, channels), (channels, h, w) or pages
    white     the value of a 16-bit picture that counts as white; what lies above is white, too
    Fractions must lie in [0, 1], and 1 is white. Raises UnsupportedInput, which names the file, if it is damaged, no
    picture, or of other channels.
    """
    data = _bytes(path)
    if data[:6].tobytes().startswith(ARRAYS):
        return _levels(read_array(path, channels), bits, white, path)
    if channels in (1, 3):
        picture = _decode(
            path, data, cv2.IMREAD_ANYDEPTH | (cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR)
        )
        picture = picture[..., None] if picture.ndim == 2 else picture[..., ::-1]
        return np.ascontiguousarray(_levels(picture, bits, white, path))
    if data[:4].tobytes().startswith(TIFFS):
        return _levels(read_tiff(path, channels), bits, white, path)
    stored = _decode(path, data, cv2.IMREAD_UNCHANGED)
    there = 1 if stored.ndim == 2 else stored.shape[2]
    if channels != 4 or there != 4:
        raise UnsupportedInput(
            f"{path}: holds {there} channels, not {channels}; "
            + (
                "set channels_a and channels_b to what is there"
                if channels < 5
                else "such pictures are .npy, .npz or .tif"
            )
        )
    return np.ascontiguousarray(_levels(stored, bits, white, path)[..., [2, 1, 0, 3]])


def _levels(values: NDArray[Any], bits: Bits, white: int, path: Path) -> Picture:
    """Values as whole numbers of so many bits."""
    most, kept = _DEEPEST[bits], np.dtype(f"uint{bits}")
    if values.dtype == np.uint16 and values.size and values.max() < white // 8:
        _say_dark(path, int(values.max()), white)
    if values.dtype == kept and (bits == 8 or white == most):
        return values
    whites = {"uint8": 255, "uint16": white, "bool": 1}
    if values.dtype.name in whites:
        white = whites[values.dtype.name]
        scaled: NDArray[Any] = (np.minimum(values, white).astype(np.uint64) * most + white // 2) // white
        return scaled.astype(kept)
    if values.dtype.kind != "f":
        raise UnsupportedInput(f"{path}: holds {values.dtype} values; save it with 8 or 16 bits, or as fractions of 1")
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if not (low >= 0.0 and high <= 1.0):  # NaN is not either
        raise UnsupportedInput(f"{path}: holds fractions from {low:.4g} to {high:.4g}; scale them to 0 ... 1")
    return np.rint(values.astype(np.float64) * most).astype(kept)


_dark: set[int] = set()  # the whites of which it was said


def _say_dark(path: Path, most: int, white: int) -> None:
    """Twelve bits in sixteen look black; that is said once."""
    if white not in _dark:
        _dark.add(white)
        log.warning(
            "%s reaches %d of %d, and will be almost black; if that is its white, set white=%d", path, most, white, most
        )


def read_as_stored(path: Path) -> NDArray[Any]:
    """(h, w) or (h, w, 3 or 4) in OpenCV's order, with the bits, greys and alpha of the file; turned upright."""
    data = _bytes(path)
    if data[:6].tobytes().startswith(ARRAYS):
        raise UnsupportedInput(f"{path}: is an array, no picture; side by side it can be trained with as it is")
    upright = _decode(path, data, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)
    if data[:3].tobytes() == _JPEG:
        return upright
    stored = _decode(path, data, cv2.IMREAD_UNCHANGED)  # the only way to alpha; leaves EXIF aside
    return stored if stored.ndim == 3 and stored.shape[2] == 4 else upright


def write_as_stored(path: Path, picture: NDArray[Any]) -> bool:
    """The other way, in the format of the suffix; False where that has no such values. Raises OSError.

    cv2.imwrite is not asked: OpenCV 5 dies of a name that is no Unicode, and a full disk is False to it as well.
    """
    try:
        able, data = cv2.imencode(path.suffix, picture)
    except cv2.error:
        return False
    if able:
        path.write_bytes(data.tobytes())
    return bool(able)


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


def _bytes(path: Path) -> NDArray[np.uint8]:
    try:
        return np.fromfile(path, np.uint8)
    except OSError as error:
        raise UnsupportedInput(f"{path}: cannot be read ({error.strerror or error})") from error


def _decode(path: Path, data: NDArray[np.uint8], flags: int) -> NDArray[Any]:
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
