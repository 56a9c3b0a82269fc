"""TCP connections: not too many of one client, and a request's head must come in time (slow loris)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .access import client_of
from .limits import Limits
from .problems import Problem, busy, too_many


def guarded(limits: Limits) -> type[H11Protocol]:
    """uvicorn's HTTP protocol with these limits. One class for one server: it counts its own connections."""
    open_now: Counter[str] = Counter()

    class Guarded(H11Protocol):
        _who: str | None = None  # counted in open_now
        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            _give_up_on_who_does_not_read(transport, limits.send_seconds)
            who = client_of(self.client[0] if self.client else None)
            if open_now.total() >= limits.connections:
                self._refuse(busy("there are too many connections", 5))
            elif open_now[who] >= limits.connections_per_client:
                self._refuse(too_many("you have too many connections", 5))
            else:
                self._who = who
                open_now[who] += 1
                self._expect_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            self._uncount()
            super().connection_lost(exc)

        def handle_websocket_upgrade(self, event: h11.Request) -> None:
            self._stop_waiting()
            self._uncount()  # from here on it is not ours, and counts as a live connection
            super().handle_websocket_upgrade(event)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE:
                self._stop_waiting()
            elif self.conn.trailing_data[0] and self._deadline is None:  # the next request's head has begun
                self._expect_head()

        def send_400_response(self, msg: str) -> None:
            self._refuse(Problem(400, "malformed", msg))

        def _expect_head(self) -> None:
            self._deadline = self.loop.call_later(limits.header_seconds, self._too_late)

        def _too_late(self) -> None:
            if self.conn.trailing_data[0]:
                self._refuse(Problem(408, "too_slow", "the request took too long to arrive"))
            else:
                self.transport.close()  # nobody asked anything

        def _stop_waiting(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _uncount(self) -> None:
            if self._who is not None:
                open_now[self._who] -= 1
                if not open_now[self._who]:
                    del open_now[self._who]
                self._who = None

        def _refuse(self, problem: Problem) -> None:
            self._stop_waiting()
            if self.transport.is_closing():
                return
            head = [*problem.raw_headers, (b"connection", b"close")]
            response = h11.Response(status_code=problem.status, headers=head)
            events: list[Any] = [response, h11.Data(data=problem.body), h11.EndOfMessage()]
            with contextlib.suppress(h11.LocalProtocolError):  # in the middle of another answer
                for event in events:
                    self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

    return Guarded


def _give_up_on_who_does_not_read(transport: asyncio.Transport, seconds: float) -> None:
    """Let the kernel drop a connection whose peer takes nothing for so long: closing it would wait for ever."""
    option = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux
    connection = transport.get_extra_info("socket")
    if option is not None and connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.IPPROTO_TCP, option, max(1, int(seconds * 1000)))
