"""Ctrl-C, and the signals by which a machine ends a program, as one exception; and parts they do not cut through."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_ENDING = ("SIGTERM", "SIGHUP")  # by default they end a process at once, with half-made files left behind

_deaf: list[None] = []  # one for each block of `uninterrupted` the main thread is in
_missed: list[int] = []  # signals that came meanwhile
_came: list[int] = []


class Interrupted(KeyboardInterrupt):
    """A signal that asks the program to end."""

    def __init__(self, signal: int) -> None:
        super().__init__()
        self.exit_code = 128 + signal  # as shells have it: 130 after Ctrl-C


@contextlib.contextmanager
def interruptible() -> Iterator[list[int]]:
    """Within the block Ctrl-C, SIGTERM and SIGHUP raise Interrupted, in the main thread. Yields those that came.

    Handlers that others have set stay, and so does a signal that is ignored, as nohup and `&` have it.
    """
    _came.clear()
    before = {}
    if threading.current_thread() is threading.main_thread():
        wanted = {signal.SIGINT: signal.default_int_handler}
        wanted |= {getattr(signal, name): signal.SIG_DFL for name in _ENDING if hasattr(signal, name)}
        before = {number: usual for number, usual in wanted.items() if signal.getsignal(number) == usual}
        for number in before:
            signal.signal(number, _raise)
    try:
        yield _came
    finally:
        for number, usual in before.items():
            signal.signal(number, usual)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """A block that a first signal does not cut through: it raises when the block has ended. A second one does."""
    if threading.current_thread() is not threading.main_thread():  # where no signal raises anything
        yield
        return
    _deaf.append(None)
    try:
        yield
    finally:
        _deaf.pop()
        missed = _missed[:1]
        if not _deaf:
            _missed.clear()
    if missed and not _deaf:
        raise Interrupted(missed[0])


def _raise(number: int, frame: FrameType | None) -> None:
    _came.append(number)
    if _deaf and not _missed:
        _missed.append(number)
        return
    raise Interrupted(number)
