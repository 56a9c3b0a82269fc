"""The door every request comes through: who may, how often, and with which headers the answer leaves."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .access import Access, client_of
from .limits import Limits, Rate
from .metrics import Metrics
from .problems import Problem, too_many

log = logging.getLogger("gantrt")

# What no token is asked for, besides the page, which holds no secret: the door to log in by, the probes of a balancer.
_OPEN = ("/api/session", "/healthz", "/readyz")
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_COSTLY = ("POST",)  # what the rate of a client counts

_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "cache-control": "no-store",
}
_SECURITY = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]


class Door:
    """ASGI middleware. What goes wrong behind it leaves as JSON, and an unforeseen error without its details."""

    def __init__(
        self, app: ASGIApp, access: Access, limits: Limits, metrics: Metrics, page: Iterable[str] = ()
    ) -> None:
        self._app, self._access, self._limits, self._metrics = app, access, limits, metrics
        self._open = {*_OPEN, *page}
        self._rate = Rate(limits.requests_per_second, limits.burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        answer = _Answer(scope, send, self._limits.send_seconds)
        begin = time.perf_counter()
        try:
            self._check(scope)
            await self._app(scope, receive, answer.send)
        except Problem as problem:
            self._metrics.refused.labels(problem.code).inc()
            await answer.refuse(problem)
        except asyncio.TimeoutError:  # the client takes nothing: the server closes what has begun
            log.debug("%s %s: the client stopped reading", scope["type"], scope["path"])
            if not answer.status:
                await answer.refuse(Problem(408, "too_slow", "the request took too long"))
        except Exception:
            log.exception("serve: unforeseen error in %s", scope["path"])
            await answer.refuse(Problem(500, "internal", "the server made an error; its log says which"))
        finally:
            if scope["type"] == "http":
                self._count(scope, answer.status, time.perf_counter() - begin)

    def _check(self, scope: Scope) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        client = client_of(scope["client"][0] if scope.get("client") else None)
        scope.setdefault("state", {})["client"] = client
        method = scope["method"] if scope["type"] == "http" else "CONNECT"
        self._access.check_host(headers.get("host", ""))
        self._access.check_origin(method, headers)
        if scope["path"] not in self._open:
            self._access.check_token(client, headers, _cookies(headers.get("cookie", "")))
        if method in _COSTLY and (wait := self._rate.take(client)):
            raise too_many("too many requests", wait)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")  # the pattern, so that ids make no new series
        method = scope["method"] if scope["method"] in _METHODS else "other"  # a client may make up any word
        self._metrics.requests.labels(method, route, str(status or 499)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        log.debug("%s %s %s %d %.1f ms", scope["state"]["client"], scope["method"], route, status, seconds * 1e3)


class _Answer:
    """What is sent: with the headers of every answer, and not for ever to a client that does not read."""

    def __init__(self, scope: Scope, send: Send, seconds: float) -> None:
        self._scope, self._send, self._seconds = scope, send, seconds
        self.status = 0  # nothing was sent yet

    async def send(self, message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.http.response.start"):
            self.status = message["status"]
            has = {name for name, _ in message["headers"]}
            message["headers"] = [*message["headers"], *(header for header in _SECURITY if header[0] not in has)]
        elif message["type"] == "websocket.accept":
            self.status = 101
        await asyncio.wait_for(self._send(message), self._seconds)

    async def refuse(self, problem: Problem) -> None:
        """Answer with the problem; too late for that, only the connection's end can say it."""
        if self.status:
            if self._scope["type"] == "http":
                raise ConnectionAbortedError(problem.message)
            return
        if self._scope["type"] == "websocket" and "websocket.http.response" not in self._scope.get("extensions", {}):
            await self.send({"type": "websocket.close", "code": 1008, "reason": problem.code})
            return
        kind = "http.response" if self._scope["type"] == "http" else "websocket.http.response"
        await self.send({"type": f"{kind}.start", "status": problem.status, "headers": problem.raw_headers})
        await self.send({"type": f"{kind}.body", "body": problem.body})


def _cookies(header: str) -> dict[str, Any]:
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(header).items()}
    except CookieError:
        return {}
