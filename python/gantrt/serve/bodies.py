"""The body of a request, piece by piece: not one byte more than allowed, and not for ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect, Request

from .limits import Limits
from .problems import Problem, too_large


async def pieces(request: Request, what: str, limit: int, limits: Limits) -> AsyncIterator[bytes]:
    """The body's pieces, at most `limit` bytes of them. Raises Problem: 408 too slow, 411, 413 too large."""
    declared = request.headers.get("content-length")
    if declared is not None and declared.isdecimal() and int(declared) > limit:
        raise too_large(what, bytes=limit)
    until = time.monotonic() + limits.upload_seconds
    stream = request.stream().__aiter__()
    received = 0
    while True:
        patience = min(limits.upload_idle_seconds, until - time.monotonic())
        try:
            piece = await asyncio.wait_for(stream.__anext__(), max(patience, 0.001))
        except StopAsyncIteration:
            return
        except asyncio.TimeoutError as error:
            raise Problem(408, "too_slow", f"{what} arrives too slowly") from error
        except ClientDisconnect as error:
            raise Problem(400, "gone", "the client went away") from error
        received += len(piece)
        if received > limit:
            raise too_large(what, bytes=limit)
        if piece:
            yield piece


async def whole(request: Request, what: str, limit: int, limits: Limits) -> bytes:
    """All of the body, in memory. Raises Problem, also where there is none."""
    body = b"".join([piece async for piece in pieces(request, what, limit, limits)])
    if not body:
        raise Problem(422, "unreadable", f"{what} is empty")
    return body
