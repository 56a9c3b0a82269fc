"""Runs the app: uvicorn on one socket, until Ctrl-C or SIGTERM, with what was begun finished first."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Generator
from dataclasses import dataclass
from types import FrameType

import uvicorn
from fastapi import FastAPI

from ..errors import GantrtError
from .connections import guarded
from .limits import Limits

log = logging.getLogger("gantrt")

_DRAIN_SECONDS = 10
_KEEP_ALIVE_SECONDS = 15
_HEAD_BYTES = 32 << 10
_BACKLOG = 512


@dataclass(frozen=True)
class Place:
    """Where to listen. proxy: the address whose X-Forwarded-For and -Proto are believed."""

    host: str
    port: int
    certificate: str | None = None
    key: str | None = None
    proxy: str | None = None


def listen(place: Place) -> socket.socket:
    """Raises GantrtError if the address cannot be had."""
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    try:
        return socket.create_server((place.host, place.port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
        raise GantrtError(f"serve: cannot listen on {place.host} port {place.port} ({reason}); try --port") from error


def serve(app: FastAPI, place: Place, limits: Limits, listener: socket.socket) -> None:
    """Until SIGTERM. Raises KeyboardInterrupt after Ctrl-C; a second one does not wait for what was begun."""
    server = make_server(app, place, limits)
    _log_as_ours()
    server.run(sockets=[listener])
    if signal.SIGINT in server.caught:
        raise KeyboardInterrupt


def make_server(app: FastAPI, place: Place, limits: Limits) -> Server:
    """uvicorn with our limits. Raises GantrtError if the certificate cannot be read."""
    try:
        config = uvicorn.Config(
            app,
            http=guarded(limits),
            ws="websockets-sansio",
            ws_max_size=limits.frame_bytes + 64,
            ws_per_message_deflate=False,  # pictures do not get smaller, and bombs do not get in
            h11_max_incomplete_event_size=_HEAD_BYTES,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_DRAIN_SECONDS,
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=place.proxy is not None,
            forwarded_allow_ips=place.proxy,
            ssl_certfile=place.certificate,
            ssl_keyfile=place.key,
        )
        config.load()
    except OSError as error:
        raise GantrtError(f"serve: certificate or key cannot be read ({error.strerror or error})") from error
    return Server(config)


class Server(uvicorn.Server):
    """uvicorn ends itself by the signal it caught, before engines are closed; here the caller decides."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.caught: list[int] = []

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.caught.append(sig)
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if self.force_exit:  # impatience does not leave files behind
            await self.lifespan.shutdown()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        mine = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
        before = {sig: signal.signal(sig, self.handle_exit) for sig in mine}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)


def _log_as_ours() -> None:
    """uvicorn's errors come out where ours do; what clients do wrong is counted, not logged."""
    theirs = logging.getLogger("uvicorn")
    theirs.handlers[:] = log.handlers
    theirs.propagate = log.propagate
    theirs.setLevel(logging.INFO if log.level <= logging.DEBUG else logging.ERROR)
