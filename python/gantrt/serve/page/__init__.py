"""The page: files as they lie here, read once at the start. No path of a request is ever looked for on the disk."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response

_MEDIA_TYPES = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "api.js": "text/javascript; charset=utf-8",
    "compare.js": "text/javascript; charset=utf-8",
    "camera.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


@dataclass(frozen=True)
class Asset:
    content: bytes
    media_type: str
    etag: str

    async def response(self, request: Request) -> Response:
        headers = {"etag": self.etag, "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == self.etag:
            return Response(status_code=304, headers=headers)
        return Response(self.content, media_type=self.media_type, headers=headers)


def assets() -> dict[str, Asset]:
    """Path of a request -> what it is answered with."""
    made = {}
    for name, media_type in _MEDIA_TYPES.items():
        content = resources.files(__name__).joinpath(name).read_bytes()
        etag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
        made["/" if name == "index.html" else f"/{name}"] = Asset(content, media_type, etag)
    return made
