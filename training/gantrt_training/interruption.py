"""Ctrl-C and SIGTERM as a request that a training grants between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def interruptions() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets; a second one interrupts at once, as ever."""
    asked = threading.Event()
    before: dict[signal.Signals, Any] = {}

    def ask(number: int, frame: Any) -> None:
        asked.set()
        for signal_, handler in before.items():
            signal.signal(signal_, handler)

    if threading.current_thread() is threading.main_thread():  # elsewhere signals are none of our business
        before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for signal_, handler in before.items():
            signal.signal(signal_, handler)
