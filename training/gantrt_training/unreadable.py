"""Pictures that cannot be used: each is named once and skipped, up to a limit."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from gantrt.errors import UnsupportedInput

log = logging.getLogger("gantrt")

_NAMED = 20  # in the error; the log has named all of them


class TooManyUnreadable(UnsupportedInput):
    """More pictures cannot be used than the training was allowed to skip."""


class Unreadable:
    """The pictures skipped so far. Threads may share it."""

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit
        self.reasons: dict[Path, str] = {}
        self._lock = threading.Lock()

    def __contains__(self, path: Path) -> bool:
        return path in self.reasons

    def add(self, path: Path, error: UnsupportedInput) -> None:
        """Note `path`, and log it the first time. Raises TooManyUnreadable, which lists them, beyond the limit."""
        with self._lock:
            if path not in self.reasons:
                self.reasons[path] = str(error)
                if len(self.reasons) <= self.limit:
                    log.warning("train: skipped a picture, %d of at most %d: %s", len(self.reasons), self.limit, error)
            if len(self.reasons) <= self.limit:
                return
            listed = "; ".join(list(self.reasons.values())[:_NAMED])
        more = f"; and {len(self.reasons) - _NAMED} more" if len(self.reasons) > _NAMED else ""
        raise TooManyUnreadable(
            f"train: {len(self.reasons)} pictures cannot be used, {self.limit} may be skipped (max_unreadable): "
            f"{listed}{more}"
        ) from error
