"""Features that were computed before, by picture and network: the test pictures of a data set never change."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..pictures import Picture

log = logging.getLogger("gantrt")

Feature = NDArray[np.float32]
_TABLE = """CREATE TABLE IF NOT EXISTS features
    (network TEXT, picture BLOB, feature BLOB, PRIMARY KEY (network, picture)) WITHOUT ROWID"""
_AT_ONCE = 500  # keys in a query: SQLite bounds the number of variables


def picture_key(picture: Picture) -> bytes:
    """A digest of the pixels and their shape: the same picture in another file or folder has the same."""
    return hashlib.sha256(repr(picture.shape).encode() + np.ascontiguousarray(picture).tobytes()).digest()


def default_cache_file() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gantrt" / "features.sqlite"


class FeatureCache:
    """A file that several processes may use at once; `path` None: kept in memory for this process.

    A file that cannot be used is said so once, and features are then computed as if there were none.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._database: sqlite3.Connection | None = None
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path or ":memory:", timeout=30)
            self._database.execute(_TABLE)
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)

    def get(self, network: str, keys: Sequence[bytes]) -> dict[bytes, Feature]:
        """Those of `keys` that are known."""
        found: dict[bytes, Feature] = {}
        try:
            for start in range(0, len(keys) if self._database else 0, _AT_ONCE):
                some = keys[start : start + _AT_ONCE]
                marks = ",".join("?" * len(some))
                rows = self._database.execute(  # type: ignore[union-attr]
                    f"SELECT picture, feature FROM features WHERE network = ? AND picture IN ({marks})",
                    (network, *some),
                )
                found |= {picture: np.frombuffer(values, np.float32) for picture, values in rows}
        except sqlite3.Error as error:
            self._give_up(error)
        return found

    def put(self, network: str, features: Mapping[bytes, Feature]) -> None:
        if self._database is None:
            return
        rows = [(network, key, np.ascontiguousarray(value, np.float32).tobytes()) for key, value in features.items()]
        try:
            with self._database:
                self._database.executemany("INSERT OR REPLACE INTO features VALUES (?, ?, ?)", rows)
        except sqlite3.Error as error:
            self._give_up(error)

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _give_up(self, error: Exception) -> None:
        log.warning("evaluate: %s cannot be used (%s); features are computed anew", self.path, error)
        with contextlib.suppress(sqlite3.Error):
            self.close()
