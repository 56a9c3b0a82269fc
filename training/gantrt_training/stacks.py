"""Pictures of any number of channels: NumPy arrays, and TIFFs with several layers or pages. Never runs a pickle."""

from __future__ import annotations

import contextlib
import logging
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from gantrt.errors import DeviceUnavailable, UnsupportedInput
from numpy.typing import NDArray

ARRAYS = (b"\x93NUMPY", b"PK\x03\x04")  # how .npy and .npz begin
TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # how TIFF and BigTIFF begin

_DAMAGE = (OSError, ValueError, EOFError, KeyError, TypeError, IndexError, MemoryError, zipfile.BadZipFile)


def read_array(path: Path, channels: int) -> NDArray[Any]:
    """The array in a .npy file, or the only one in a .npz, as (h, w, channels). Raises UnsupportedInput."""
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            values: NDArray[Any] = content
        else:
            with content:
                if len(content.files) != 1:
                    raise UnsupportedInput(
                        f"{path}: holds {len(content.files)} arrays, not one; save one picture a file"
                    )
                values = content[content.files[0]]
    except UnsupportedInput:
        raise
    except _DAMAGE as error:
        raise UnsupportedInput(f"{path}: is damaged, or no array of numbers ({_gist(error)})") from error
    return _channels_last(values, channels, path)


def read_tiff(path: Path, channels: int) -> NDArray[Any]:
    """A TIFF with `channels` layers or pages, as (h, w, channels). Raises UnsupportedInput.

    Raises DeviceUnavailable without the library for it: OpenCV's reader stops at four layers.
    """
    try:
        import tifffile
    except ModuleNotFoundError as error:
        raise DeviceUnavailable(
            f'train: a TIFF of {channels} channels needs tifffile; pip install "gantrt[train]"'
        ) from error
    try:
        with _quiet("tifffile"):
            values = np.asarray(tifffile.imread(path))
    except Exception as error:  # its readers raise what their compression's library raises
        hint = "; pip install imagecodecs" if "imagecodecs" in str(error) else ""
        raise UnsupportedInput(f"{path}: cannot be decoded ({_gist(error)}){hint}") from error
    return _channels_last(values, channels, path)


def _channels_last(values: NDArray[Any], channels: int, path: Path) -> NDArray[Any]:
    """(h, w, channels) of itself, of (channels, h, w), or for one channel of (h, w)."""
    shape = values.shape
    if values.ndim == 2 and channels == 1:
        values = values[..., None]
    elif values.ndim == 3 and shape[2] != channels and shape[0] == channels:
        values = values.transpose(1, 2, 0)
    if values.ndim != 3 or values.shape[2] != channels or 0 in shape:
        raise UnsupportedInput(
            f"{path}: holds {'x'.join(map(str, shape)) or 'a number'}, not height x width x {channels}; "
            "set channels_a and channels_b to what is there"
        )
    return np.ascontiguousarray(values)


def _gist(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


@contextlib.contextmanager
def _quiet(name: str) -> Any:
    """Its library logs what our error says."""
    logger = logging.getLogger(name)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
