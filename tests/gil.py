"""Whether other Python threads get on while C++ is at work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


def turns_of_another_thread(work: Callable[[], object]) -> int:
    """How often a thread that does nothing gets its turn while `work` runs."""
    turns, stop = [0], threading.Event()

    def count() -> None:
        while not stop.is_set():
            turns[0] += 1
            time.sleep(0)

    counter = threading.Thread(target=count)
    counter.start()
    try:
        before = turns[0]
        work()
        return turns[0] - before
    finally:
        stop.set()
        counter.join()
