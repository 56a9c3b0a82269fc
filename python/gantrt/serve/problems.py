"""What can go wrong for a client, and how it is said: an HTTP status and one JSON object."""

from __future__ import annotations

import json
import math
from typing import Any


class Problem(Exception):
    """An error that is the client's, or that the client can wait out.

    status       of HTTP
    code         one word for programs, e.g. "too_large"
    message      one sentence for people: what was wrong, what to do
    retry_after  seconds after which it may go better
    """

    def __init__(self, status: int, code: str, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after = status, code, message, retry_after

    def to_json(self, **more: Any) -> dict[str, Any]:
        error: dict[str, Any] = {"code": self.code, "message": self.message} | more
        if self.retry_after is not None:
            error["retry_after"] = self._seconds
        return {"error": error}

    @property
    def headers(self) -> dict[str, str]:
        headers = {"content-type": "application/json", "cache-control": "no-store"}
        if self.retry_after is not None:
            headers["retry-after"] = str(self._seconds)
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return headers

    @property
    def body(self) -> bytes:
        return json.dumps(self.to_json()).encode()

    @property
    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        length = [(b"content-length", str(len(self.body)).encode())]
        return [(name.encode(), value.encode()) for name, value in self.headers.items()] + length

    @property
    def _seconds(self) -> int:
        return max(1, math.ceil(self.retry_after or 0))


def too_large(what: str, *, bytes: int = 0, pixels: int = 0) -> Problem:
    """The limit is one of the two."""
    most = f"{pixels / 1e6:g} megapixels" if pixels else f"{bytes / 1e6:g} MB"
    return Problem(413, "too_large", f"{what} is too large: at most {most}")


def busy(message: str, retry_after: float) -> Problem:
    """The server has too much to do."""
    return Problem(503, "busy", message, retry_after=retry_after)


def too_many(message: str, retry_after: float) -> Problem:
    """This client asks for too much."""
    return Problem(429, "too_many", message, retry_after=retry_after)
