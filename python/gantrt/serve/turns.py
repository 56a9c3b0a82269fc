"""Whose turn it is at an engine: a bounded queue, served fairly.

Clients take turns, and so do the lanes of a client (its connections, its clips, its pictures): who sends a thousand
frames waits for them, and nobody else does.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_LATEST = 0.1  # weight of the newest job in the mean time of one


class Full(Exception):
    """There is no room. `client`: in the lane, which is the client's own doing; else in the whole queue."""

    def __init__(self, retry_after: float, *, client: bool) -> None:
        super().__init__(f"the queue is full, for about {retry_after:.1f} s")
        self.retry_after, self.client = retry_after, client


@dataclass(eq=False)
class _Job(Generic[T]):
    work: Callable[[], T]
    future: Future[T] = field(default_factory=Future)


class Turns:
    """Threads that do the jobs of one engine.

    threads   jobs under way at once
    capacity  jobs waiting, of all clients
    per_lane  jobs waiting in one lane
    """

    def __init__(self, name: str, threads: int, capacity: int, per_lane: int) -> None:
        self._capacity, self._per_lane = capacity, per_lane
        self._clients: OrderedDict[str, OrderedDict[str, deque[_Job[Any]]]] = OrderedDict()
        self._waiting = 0
        self._seconds = 0.05  # a job takes, on average
        self._closed = False
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._serve, name=f"gantrt-serve-{name}-{i}", daemon=True) for i in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        return self._waiting

    def submit(self, client: str, lane: str, work: Callable[[], T]) -> Future[T]:
        """Queue `work`; its result is the future's. Cancelling the future gives its place free.

        Raises Full, and RuntimeError after `close`.
        """
        job = _Job(work)
        with self._changed:
            if self._closed:
                raise RuntimeError("turns: closed")
            lanes: Mapping[str, deque[_Job[Any]]] = self._clients.get(client, {})
            if len(lanes.get(lane, ())) >= self._per_lane:
                raise Full(self._per_lane * self._seconds, client=True)
            if self._waiting >= self._capacity:
                raise Full(self._waiting * self._seconds / len(self._threads), client=False)
            self._clients.setdefault(client, OrderedDict()).setdefault(lane, deque()).append(job)
            self._waiting += 1
            self._changed.notify()
        job.future.add_done_callback(lambda future: self._forget(client, lane, job) if future.cancelled() else None)
        return job.future

    def close(self) -> None:
        """Cancel what waits, finish what was begun. May be called again."""
        with self._changed:
            self._closed = True
            left = [job for lanes in self._clients.values() for lane in lanes.values() for job in lane]
            self._changed.notify_all()
        for job in left:
            job.future.cancel()
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        while (job := self._next()) is not None:
            if not job.future.set_running_or_notify_cancel():
                continue
            begin = time.perf_counter()
            try:
                result = job.work()
            except BaseException as error:  # whatever it is, it is the caller's
                job.future.set_exception(error)
            else:
                job.future.set_result(result)
            self._seconds += _LATEST * (time.perf_counter() - begin - self._seconds)
            del job  # or the thread would hold a picture until the next comes

    def _next(self) -> _Job[Any] | None:
        """The job whose turn it is; waits for one. None: closed."""
        with self._changed:
            while not self._clients:
                if self._closed:
                    return None
                self._changed.wait()
            client, lanes = self._clients.popitem(last=False)
            lane, jobs = lanes.popitem(last=False)
            job = jobs.popleft()
            self._waiting -= 1
            if jobs:
                lanes[lane] = jobs  # at the end: the client's other lanes come first
            if lanes:
                self._clients[client] = lanes  # likewise the other clients
            return job

    def _forget(self, client: str, lane: str, job: _Job[Any]) -> None:
        with self._changed:
            lanes = self._clients.get(client, OrderedDict())
            jobs = lanes.get(lane, deque())
            if job not in jobs:
                return  # it was its turn already
            jobs.remove(job)
            self._waiting -= 1
            if not jobs:
                del lanes[lane]
            if not lanes:
                del self._clients[client]
