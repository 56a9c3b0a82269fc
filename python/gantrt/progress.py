"""How far a long job is: a bar that rewrites itself on a terminal, a plain line every five seconds elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

_BAR_WIDTH = 24
_TTY_PERIOD = 0.1
_LINE_PERIOD = 5.0


class Progress:
    """Count `unit`s up to `total` (None: unknown) and print rate, time left and whatever fields are given."""

    def __init__(
        self,
        total: int | None,
        unit: str,
        *,
        label: str = "",
        enabled: bool = True,
        start: int = 0,
        stream: TextIO | None = None,
    ) -> None:
        self.total, self.unit, self.label, self.enabled = total, unit, label, enabled
        self.stream = stream if stream is not None else sys.stderr
        self.done = self._start = start
        self._tty = self.stream.isatty()
        self._begin = self._last = time.monotonic()
        self._fields: dict[str, float | str] = {}
        self._width = 0

    def update(self, count: int = 1, **fields: float | str) -> None:
        """Add `count`; `fields` (losses, p95 ms, ...) replace earlier ones of the same name."""
        self.done += count
        self._fields.update(fields)
        now = time.monotonic()
        if self.enabled and now - self._last >= (_TTY_PERIOD if self._tty else _LINE_PERIOD):
            self._last = now
            self._print(now)

    def due(self) -> bool:
        """Whether the next update will print: a caller can fetch costly fields only then."""
        return self.enabled and time.monotonic() - self._last >= (_TTY_PERIOD if self._tty else _LINE_PERIOD)

    def close(self) -> None:
        if self.enabled:
            self._print(time.monotonic())
            if self._tty:
                self.stream.write("\n")
            self.stream.flush()
            self.enabled = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _print(self, now: float) -> None:
        text = self._text(now)
        if self._tty:
            self.stream.write("\r" + text.ljust(self._width))
            self._width = len(text)
        else:
            self.stream.write(text + "\n")
        self.stream.flush()

    def _text(self, now: float) -> str:
        seconds = max(now - self._begin, 1e-9)
        rate = (self.done - self._start) / seconds
        parts = [self.label] if self.label else []
        if self.total:
            filled = round(_BAR_WIDTH * min(self.done / self.total, 1.0))
            left = (self.total - self.done) / rate if rate > 0 else 0.0
            parts += [
                f"{'█' * filled}{'·' * (_BAR_WIDTH - filled)}" if self._tty else "",
                f"{self.done}/{self.total} {self.unit}",
            ]
            parts += [f"{rate:.1f}/s", f"{_clock(left)} left" if self.done < self.total else _clock(seconds)]
        else:
            parts += [f"{self.done} {self.unit}", f"{rate:.1f}/s", _clock(seconds)]
        parts += [
            f"{name} {value:.3f}" if isinstance(value, float) else f"{name} {value}"
            for name, value in self._fields.items()
        ]
        return "  ".join(part for part in parts if part)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
