"""The queue before an engine: fair among clients and among their lanes, bounded, and left when nobody waits."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest
from gantrt.serve.turns import Full, Turns


class Order:
    """Turns of one thread, held up until `go`; keeps the order in which jobs are done."""

    def __init__(self, turns: Turns) -> None:
        self.turns, self.done, self._gate = turns, list[str](), threading.Event()
        started = threading.Event()
        turns.submit("nobody", "0", lambda: (started.set(), self._gate.wait(10)))
        started.wait(5)  # the thread is busy, so that what is submitted now waits

    def add(self, client: str, lane: str, name: str) -> Future[Any]:
        return self.turns.submit(client, lane, lambda: self.done.append(name))

    def finish(self, *jobs: Future[Any]) -> list[str]:
        self._gate.set()
        for job in jobs:
            job.result(5)
        return self.done


@pytest.fixture
def order() -> Iterator[Order]:
    with closing(Turns("test", threads=1, capacity=100, per_lane=50)) as turns:
        yield Order(turns)


@contextlib.contextmanager
def closing(turns: Turns) -> Iterator[Turns]:
    try:
        yield turns
    finally:
        turns.close()


def test_a_client_with_many_jobs_does_not_hold_up_one_with_few(order: Order) -> None:
    jobs = [order.add("greedy", "1", f"greedy{i}") for i in range(4)] + [order.add("modest", "1", "modest")]
    assert order.finish(*jobs) == ["greedy0", "modest", "greedy1", "greedy2", "greedy3"]


def test_lanes_of_one_client_take_turns_and_other_clients_come_between(order: Order) -> None:
    jobs = [order.add("a", "clip", f"clip{i}") for i in range(3)]
    jobs += [order.add("a", "live", "live"), order.add("b", "live", "other")]
    assert order.finish(*jobs) == ["clip0", "other", "live", "clip1", "clip2"]


def test_a_full_lane_is_the_clients_fault_and_a_full_queue_is_not() -> None:
    gate = threading.Event()
    with closing(Turns("test", threads=1, capacity=3, per_lane=2)) as turns:
        begun = threading.Event()
        turns.submit("a", "1", lambda: (begun.set(), gate.wait(10)))
        begun.wait(5)
        for _ in range(2):
            turns.submit("a", "1", lambda: None)
        with pytest.raises(Full) as lane:
            turns.submit("a", "1", lambda: None)
        turns.submit("b", "1", lambda: None)
        with pytest.raises(Full) as queue:
            turns.submit("c", "1", lambda: None)
        gate.set()
    assert lane.value.client
    assert not queue.value.client
    assert lane.value.retry_after > 0
    assert queue.value.retry_after > 0


def test_a_job_nobody_waits_for_gives_its_place_free_and_is_not_done(order: Order) -> None:
    left = order.add("a", "1", "left")
    stays = order.add("a", "1", "stays")
    assert order.turns.waiting == 2
    assert left.cancel()
    assert order.turns.waiting == 1
    assert order.finish(stays) == ["stays"]


def test_an_error_is_the_jobs_own(order: Order) -> None:
    def fail() -> None:
        raise ValueError("mine")

    bad, good = order.turns.submit("a", "1", fail), order.add("b", "1", "good")
    assert order.finish(good) == ["good"]
    with pytest.raises(ValueError, match="mine"):
        bad.result(5)


def test_closing_finishes_what_was_begun_and_cancels_what_waits() -> None:
    gate, begun = threading.Event(), threading.Event()
    turns = Turns("test", threads=1, capacity=9, per_lane=9)
    first = turns.submit("a", "1", lambda: (begun.set(), gate.wait(10)))
    begun.wait(5)
    second = turns.submit("a", "1", lambda: None)
    closer = threading.Thread(target=turns.close)
    closer.start()
    with pytest.raises(CancelledError):
        second.result(5)
    assert not first.done()
    gate.set()
    closer.join(5)
    assert first.result(0)
    with pytest.raises(RuntimeError, match="closed"):
        turns.submit("a", "1", lambda: None)


def test_many_threads_lose_no_job() -> None:
    count = 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal count
        with lock:
            count += 1

    with closing(Turns("test", threads=3, capacity=10_000, per_lane=10_000)) as turns:

        def send(client: str) -> None:
            jobs = [turns.submit(client, str(i % 3), work) for i in range(300)]
            for i, job in enumerate(jobs):
                if i % 7 == 0:
                    job.cancel()
            for job in jobs:
                with contextlib.suppress(CancelledError):
                    job.result(5)
            done.append(sum(not job.cancelled() for job in jobs))

        done: list[int] = []
        threads = [threading.Thread(target=send, args=(f"c{i}",)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert count == sum(done)
        assert len(done) == 6
        assert turns.waiting == 0
