"""What Prometheus reads: requests, frames, queues, connections and refusals, with the names it is used to."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """The numbers of one app. Each app has its own registry, so that a process may hold several."""

    def __init__(self, version: str, waiting: Mapping[str, Callable[[], float]]) -> None:
        self._registry = registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        Info("gantrt", "What runs here", registry=registry).info({"version": version})
        self.requests = Counter(
            "gantrt_http_requests", "HTTP requests answered", ["method", "route", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "gantrt_http_request_seconds", "From a request's head to the end of its answer", ["route"],
            registry=registry, buckets=_SECONDS,
        )  # fmt: skip
        self.frames = Counter(
            "gantrt_frames", "Frames translated; kind: picture, clip or live", ["engine", "kind"], registry=registry
        )
        self.frame_seconds = Histogram(
            "gantrt_frame_seconds", "From a frame's arrival to its translation, queue included", ["engine", "kind"],
            registry=registry, buckets=_SECONDS,
        )  # fmt: skip
        self.live = Gauge("gantrt_live_connections", "Open WebSockets", registry=registry)
        self.replaced = Counter(
            "gantrt_live_frames_replaced", "Frames of WebSockets given up for a newer one", ["engine"],
            registry=registry,
        )  # fmt: skip
        self.refused = Counter(
            "gantrt_refused", "What was refused, by the code of the error", ["code"], registry=registry
        )
        self.clips = Gauge("gantrt_clips", "Clips kept, by state", ["state"], registry=registry)
        queue = Gauge("gantrt_queue_waiting", "Frames waiting for an engine", ["engine"], registry=registry)
        for engine, count in waiting.items():
            queue.labels(engine).set_function(count)

    def text(self) -> bytes:
        return generate_latest(self._registry)
