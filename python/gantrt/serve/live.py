"""A live connection: frames in, translated frames out, the newest first in line.

One frame of a connection is under way at a time, and `keep` more wait (one, unless the client asks for more); where
there is no room, the oldest of those that wait is given up. So a client with at most `keep` frames in flight loses
none, and one that sends faster than the engine works gets answers to fresh frames. Replies keep the order of their
requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from starlette.websockets import WebSocket, WebSocketDisconnect

from .engines import Served
from .frames import Message, translate_frame
from .limits import Limits, Rate
from .metrics import Metrics
from .problems import Problem, busy, too_large, too_many
from .turns import Full

log = logging.getLogger("gantrt")

_GOING_AWAY, _POLICY, _INTERNAL = 1001, 1008, 1011
_MOST_ERRORS = 20  # in a row; then it is no client of ours

_numbers = itertools.count()


class Seats:
    """How many connections there are, of each client and of all."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits, self._metrics = limits, metrics
        self._taken: dict[str, int] = {}

    @contextlib.contextmanager
    def take(self, client: str) -> Iterator[None]:
        """One of them for the block. Raises Problem where there is none."""
        if self._taken.get(client, 0) >= self._limits.live_per_client:
            raise too_many(f"you have {self._limits.live_per_client} live connections, as many as you may", 5)
        if sum(self._taken.values()) >= self._limits.live:
            raise busy("all live connections are taken", 5)
        self._taken[client] = self._taken.get(client, 0) + 1
        self._metrics.live.inc()
        try:
            yield
        finally:
            self._metrics.live.dec()
            self._taken[client] -= 1
            if not self._taken[client]:
                del self._taken[client]


@dataclass
class _Arrived:
    message: Message
    when: float
    replaced: int  # frames given up before this one


class _Newest:
    """The newest frames, at most `keep` of them. Thread-safe."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._frames: deque[_Arrived] = deque()
        self._replaced = 0  # since the last `take`
        self._lock = threading.Lock()

    def put(self, message: Message) -> bool:
        """Whether an older one was given up for it."""
        with self._lock:
            full = len(self._frames) == self._keep
            if full:
                self._frames.popleft()
                self._replaced += 1
            self._frames.append(_Arrived(message, time.perf_counter(), 0))
            return full

    def take(self) -> _Arrived | None:
        """The oldest of them."""
        with self._lock:
            if not self._frames:
                return None
            frame = self._frames.popleft()
            frame.replaced, self._replaced = self._replaced, 0
            return frame

    def __len__(self) -> int:
        return len(self._frames)


class Live:
    """One accepted connection. keep: frames that may wait."""

    def __init__(
        self, socket: WebSocket, engine: Served, client: str, limits: Limits, metrics: Metrics, keep: int = 1
    ) -> None:
        self._socket, self._engine, self._client = socket, engine, client
        self._limits, self._metrics = limits, metrics
        self._lane = f"live-{next(_numbers)}"
        self._rate = Rate(limits.live_messages_per_second, 2 * limits.live_messages_per_second)
        self._newest, self._arrived = _Newest(keep), asyncio.Event()
        self._errors = 0  # since the last frame that went well

    async def run(self) -> None:
        """Until one side has enough."""
        tasks = [asyncio.ensure_future(self._receive()), asyncio.ensure_future(self._reply())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            code, reason = done.pop().result()
            await self._socket.close(code, reason)
        except (WebSocketDisconnect, asyncio.TimeoutError, RuntimeError) as error:
            log.debug("serve: a live connection ends: %s", error or "the client stopped reading")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _receive(self) -> tuple[int, str]:
        """Keep the newest frame; returns why the connection is to be closed."""
        while self._errors < _MOST_ERRORS:
            try:
                received = await asyncio.wait_for(self._socket.receive(), self._limits.live_idle_seconds)
            except asyncio.TimeoutError:
                return _GOING_AWAY, "idle"
            if received["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(received.get("code", 1005))
            if self._rate.take(self._lane):
                return _POLICY, "too many messages"
            try:
                message = _message(received.get("bytes"), self._limits)
            except Problem as problem:
                await self._complain(problem)
                continue
            if self._newest.put(message):
                self._metrics.replaced.labels(self._engine.name).inc()
            self._arrived.set()
        return _POLICY, "too many errors"

    async def _reply(self) -> tuple[int, str]:
        """Translate the newest frame and answer, again and again; returns why the connection is to be closed."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            try:
                job = self._engine.turns.submit(self._client, self._lane, self._translate)
            except Full as full:
                await self._complain(busy("the engine has too much to do", full.retry_after))
                continue
            try:
                made = await asyncio.wrap_future(job)
            except Exception:
                log.exception("serve: %s failed", self._engine.name)
                return _INTERNAL, "the engine failed"
            if self._newest:
                self._arrived.set()
            if made is None:
                continue
            arrived, reply = made
            if isinstance(reply, Problem):
                await self._complain(reply, arrived.message.sequence)
            else:
                await self._answer(arrived, reply)

    def _translate(self) -> tuple[_Arrived, Message | Problem] | None:
        """In a thread, when it is this connection's turn."""
        arrived = self._newest.take()
        if arrived is None:
            return None
        try:
            most = self._engine.pixels(self._limits.frame_pixels)
            return arrived, translate_frame(self._engine.translator, arrived.message, most)
        except Problem as problem:
            return arrived, problem

    async def _answer(self, arrived: _Arrived, reply: Message) -> None:
        self._errors = 0
        seconds = time.perf_counter() - arrived.when
        self._engine.count(self._metrics, "live", seconds)
        counted = dataclasses.replace(reply, replaced=min(arrived.replaced, 65535), microseconds=int(seconds * 1e6))
        await self._socket.send_bytes(counted.pack())

    async def _complain(self, problem: Problem, sequence: int | None = None) -> None:
        self._errors += 1
        self._metrics.refused.labels(problem.code).inc()
        more = {} if sequence is None else {"sequence": sequence}
        await self._socket.send_text(json.dumps(problem.to_json(**more)))


def _message(data: bytes | None, limits: Limits) -> Message:
    if data is None:
        raise Problem(400, "malformed", "frames are binary messages")
    if len(data) > limits.frame_bytes:
        raise too_large("the frame", bytes=limits.frame_bytes)
    return Message.unpack(data)
