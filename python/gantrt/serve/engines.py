"""An engine as it is served: its Translator, its queue, and what a client is told of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

from ..errors import UsageError
from ..translator import Translator
from .limits import Limits
from .metrics import Metrics
from .turns import Turns

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Served:
    """A Translator and the queue before it. The Translator remains its owner's to close."""

    def __init__(self, name: str, translator: Translator, limits: Limits) -> None:
        if not _NAME.fullmatch(name):
            raise UsageError(f"engine name {name!r}: is of letters, digits, dots, dashes, at most 64; give NAME=FILE")
        if translator.info.color != "rgb":
            raise UsageError(f"engine {name}: a served Translator takes color='rgb', not {translator.info.color!r}")
        self.name, self.translator = name, translator
        any_size = translator.engine.fit(64, 64) != translator.engine.fit(1024, 1024)
        self._most_pixels = limits.any_size_pixels if any_size else None
        streams = translator.info.streams
        # One thread more than frames at once: it reads a picture while the engine works on another.
        capacity = limits.waiting + limits.live + limits.clips * (streams + 2)
        self.turns = Turns(name, streams + 1, capacity, max(limits.waiting_per_client, streams + 2))

    def pixels(self, limit: int) -> int:
        """What a picture may have where `limit` is the limit, and the engine may have its own."""
        return limit if self._most_pixels is None else min(limit, self._most_pixels)

    def lane(self, client: str, lane: str) -> Any:
        """What `gantrt.streaming.translated` asks of a Translator; each frame waits for its turn in this lane."""
        info = self.translator.info

        def submit(frame: Any) -> Future[Any]:
            return self.turns.submit(client, lane, lambda: self.translator(frame))

        return SimpleNamespace(info=info, submit=submit)

    def count(self, metrics: Metrics, kind: str, seconds: float) -> None:
        metrics.frames.labels(self.name, kind).inc()
        metrics.frame_seconds.labels(self.name, kind).observe(seconds)

    def describe(self) -> dict[str, Any]:
        """For clients: nothing of files, folders or versions of libraries."""
        info = self.translator.info
        manifest = info.manifest
        return {
            "name": self.name,
            "family": manifest.family,
            "direction": manifest.direction,
            "height": None if manifest.input.dynamic else manifest.input.height,
            "width": None if manifest.input.dynamic else manifest.input.width,
            "channels": manifest.input.channels,
            "precision": info.precision,
            "device": info.device,
        }


def named(translators: Mapping[str, Translator], limits: Limits) -> dict[str, Served]:
    if not translators:
        raise UsageError("serve: there is no engine to serve")
    return {name: Served(name, translator, limits) for name, translator in translators.items()}
