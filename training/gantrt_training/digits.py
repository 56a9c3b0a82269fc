"""The data of the demo: real handwritten sixes and nines, an excerpt of MNIST that ships with the package."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from .pictures import write_as_stored

SIDE = 28  # pixels
_SHEETS = Path(__file__).parent / "assets" / "mnist"
_FOLDERS = {"trainA": "train_6", "trainB": "train_9", "testA": "test_6", "testB": "test_9"}


def read_sheet(name: str | Path) -> NDArray[np.uint8]:
    """The digits of one sheet, (n, 28, 28): a file, or train_6, train_9 (2000 each), test_6, test_9 (300 each)."""
    path = name if isinstance(name, Path) else _SHEETS / f"{name}.png"
    sheet = _read(path)
    rows, columns = sheet.shape[0] // SIDE, sheet.shape[1] // SIDE
    tiles = sheet.reshape(rows, SIDE, columns, SIDE).transpose(0, 2, 1, 3).reshape(-1, SIDE, SIDE)
    return np.ascontiguousarray(tiles, dtype=np.uint8)


def _read(path: Path) -> NDArray[np.uint8]:
    """Grey levels, (height, width)."""
    digit = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_GRAYSCALE)
    return np.asarray(digit, np.uint8)


def unpack(folder: Path) -> None:
    """Write each digit as a picture: sixes to trainA/ and testA/, nines to trainB/ and testB/."""
    for part, sheet in _FOLDERS.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        for index, tile in enumerate(read_sheet(sheet)):
            write_as_stored(folder / part / f"{index:04}.png", tile)


def film(path: Path, digits: NDArray[np.uint8], side: int = 224, frames_each: int = 12) -> None:
    """Write a clip (H.264, 24 frames a second) in which each digit, (n, 28, 28), sways for half a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"crf": "16"})
        stream.width = stream.height = side
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, 24)
        for index in range(len(digits) * frames_each):
            digit, phase = digits[index // frames_each], 2 * np.pi * (index % frames_each) / frames_each
            frame = av.VideoFrame.from_ndarray(_sway(digit, 12 * np.sin(phase), side), format="gray8")
            frame.pts = index
            container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode(None))


def _sway(digit: NDArray[np.uint8], degrees: float, side: int) -> NDArray[np.uint8]:
    """The digit turned about its middle and enlarged to side x side."""
    scale = side / SIDE
    matrix = cv2.getRotationMatrix2D(((SIDE - 1) / 2, (SIDE - 1) / 2), float(degrees), scale)
    matrix[:, 2] += (side - SIDE) / 2
    turned = cv2.warpAffine(digit, matrix, (side, side), flags=cv2.INTER_CUBIC)
    return np.ascontiguousarray(turned, dtype=np.uint8)


def contact_sheet(path: Path, rows: Sequence[tuple[str, Path]], columns: int = 16, scale: int = 3) -> None:
    """Write one picture of labelled rows, each the first digits in a folder of 28 x 28 pictures."""
    tile, label_width, gap = SIDE * scale, 112, 4
    sheet = np.full((len(rows) * (tile + gap) + gap, label_width + columns * (tile + gap)), 255, np.uint8)
    for row, (label, folder) in enumerate(rows):
        top = gap + row * (tile + gap)
        cv2.putText(sheet, label, (8, top + tile // 2 + 5), cv2.FONT_HERSHEY_SIMPLEX, 0.55, 0, 1, cv2.LINE_AA)
        for column, picture in enumerate(sorted(folder.glob("*.png"))[:columns]):
            digit = _read(picture)
            left = label_width + column * (tile + gap)
            sheet[top : top + tile, left : left + tile] = cv2.resize(
                digit, (tile, tile), interpolation=cv2.INTER_NEAREST
            )
    write_as_stored(path, sheet)
