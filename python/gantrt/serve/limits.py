"""How much one client, and all of them together, may ask for."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..errors import UsageError

_ADDRESSES_KEPT = 10_000


@dataclass(frozen=True)
class Limits:
    """Sizes in bytes and pixels, times in seconds. A client is an IP address (of IPv6 its /64)."""

    picture_bytes: int = 20_000_000
    picture_pixels: int = 25_000_000
    any_size_pixels: int = 2_100_000  # of a picture for an engine of any size, whose memory grows with it
    frame_bytes: int = 4_000_000  # of one message of a live connection
    frame_pixels: int = 1_400_000
    clip_bytes: int = 100_000_000
    clip_pixels: int = 3_840 * 2_160  # of one frame
    clip_seconds: float = 60.0
    clip_frames: int = 3_600
    clip_kept_seconds: float = 600.0  # after it is done; then it is removed
    clips: int = 8  # kept, waiting or under way, of all clients; 0: no clips
    clips_per_client: int = 3
    waiting: int = 64  # pictures of all clients in the queue of one engine
    waiting_per_client: int = 8
    wait_seconds: float = 30.0  # a picture that waited longer is given up
    requests_per_second: float = 20.0  # of one client that cost work, on average ...
    burst: int = 40  # ... and at once
    live: int = 128  # connections of all clients
    live_per_client: int = 64
    live_messages_per_second: float = 120.0  # of one connection; one that sends more is closed
    live_keep: int = 4  # frames of one connection that may wait, at most
    live_idle_seconds: float = 60.0
    connections: int = 512  # TCP
    connections_per_client: int = 256
    header_seconds: float = 10.0  # for the head of a request to arrive
    upload_idle_seconds: float = 10.0  # between two pieces of a body
    upload_seconds: float = 120.0  # for all of it
    send_seconds: float = 30.0  # for a client to take a piece of an answer

    @classmethod
    def of(cls, settings: Iterable[str]) -> Limits:
        """The defaults but for `settings`, each "name=value". Raises UsageError."""
        types: dict[str, type[int] | type[float]] = {
            name: type(value) for name, value in dataclasses.asdict(cls()).items()
        }
        values: dict[str, float] = {}
        for setting in settings:
            name, _, text = setting.partition("=")
            if name not in types:
                raise UsageError(f"limit {name!r}: there are {', '.join(types)}")
            try:
                values[name] = types[name](text)
            except ValueError as error:
                kind = "a whole number" if types[name] is int else "a number"
                raise UsageError(f"limit {setting!r}: {name} is {kind}") from error
            if not 0 <= values[name] < float("inf"):
                raise UsageError(f"limit {setting!r}: {name} is at least 0")
        return cls(**values)  # type: ignore[arg-type]


class Rate:
    """A token bucket per key: `rate` a second on average, `burst` at once. Remembers the last ten thousand keys."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = max(rate, 1e-9), max(burst, 1.0), clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key -> tokens, when
        self._lock = threading.Lock()

    def take(self, key: str) -> float:
        """Take one token; the seconds until there is one if there was none, else 0."""
        with self._lock:
            tokens = self._tokens(key)
            self._buckets[key] = (tokens - 1 if tokens >= 1 else tokens, self._clock())
            self._buckets.move_to_end(key)
            if len(self._buckets) > _ADDRESSES_KEPT:
                self._buckets.popitem(last=False)
            return self._until_one(tokens)

    def wait(self, key: str) -> float:
        """The same without taking it."""
        with self._lock:
            return self._until_one(self._tokens(key))

    def _tokens(self, key: str) -> float:
        now = self._clock()
        tokens, then = self._buckets.get(key, (self._burst, now))
        return min(self._burst, tokens + (now - then) * self._rate)

    def _until_one(self, tokens: float) -> float:
        return 0.0 if tokens >= 1 else (1 - tokens) / self._rate
