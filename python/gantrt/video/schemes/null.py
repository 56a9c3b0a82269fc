"""`null:` discards, for timing the rest."""

from __future__ import annotations

from .. import Frame, FrameSource, SinkOptions

SCHEMES = ("null",)
USAGE = "null:"
STREAMS = False


def sink(spec: str, like: FrameSource, options: SinkOptions) -> NullSink:
    return NullSink()


class NullSink:
    def write(self, frame: Frame) -> None: ...
    def close(self, *, complete: bool = True) -> None: ...
    def abort(self) -> None: ...
