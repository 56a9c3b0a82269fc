"""What still runs when the program ends is stopped before the interpreter is taken down.

A daemon thread that comes back from C++ after that ends the whole program with an abort. So sources are told to end,
engines finish the frames they are at, and a thread of the caller's that asks for more is put to sleep for good.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import weakref
from typing import Protocol


class Ends(Protocol):
    def end(self) -> None:
        """Stop, within seconds, and start nothing more."""
        ...


_sources: weakref.WeakSet[Ends] = weakref.WeakSet()
_engines: weakref.WeakSet[Ends] = weakref.WeakSet()


def source_runs(source: Ends) -> None:
    """`source` is ended with the program, before the engines are."""
    _sources.add(source)


def engine_runs(engine: Ends) -> None:
    """`engine` is ended with the program."""
    _engines.add(engine)


def sleep_if_daemon() -> None:
    """To be called where the program has ended and a thread wants to go on: a daemon thread stays here."""
    if threading.current_thread().daemon:
        threading.Event().wait()


@atexit.register
def _end() -> None:
    for running in (*_sources, *_engines):
        with contextlib.suppress(Exception):  # nobody is left to tell
            running.end()


def _forget() -> None:
    _sources.clear()
    _engines.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)  # their threads are the parent's
