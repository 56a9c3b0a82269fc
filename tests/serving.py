"""Apps and servers for tests of gantrt.serve: a real uvicorn on a free port, engines of which the answer is known."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import httpx
import numpy as np
from fastapi import FastAPI
from gantrt.manifest import InputSpec, Manifest
from gantrt.serve.app import create_app
from gantrt.serve.limits import Limits
from gantrt.serve.server import Place, make_server
from numpy.typing import NDArray

Image = NDArray[np.uint8]


class Negative:
    """Stands in for a Translator: 255 - frame, `seconds` after it was asked; with `gate`, not before that is set."""

    def __init__(self, seconds: float = 0, gate: threading.Event | None = None) -> None:
        manifest = Manifest(input=InputSpec(3, 256, 256))
        self.info = SimpleNamespace(
            color="rgb", streams=1, manifest=manifest, precision="fp32", device="cpu", path=Path("/secret/place.onnx")
        )
        self.engine = SimpleNamespace(fit=lambda height, width: (256, 256))
        self.calls = 0
        self._seconds, self._gate, self._one = seconds, gate, threading.Lock()

    def __call__(self, frame: Image) -> Image:
        with self._one:  # one stream
            self.calls += 1
            time.sleep(self._seconds)
            if self._gate is not None:
                self._gate.wait(10)
            return 255 - frame


def make_app(translator: Any = None, limits: Limits | None = None, **options: Any) -> FastAPI:
    return create_app({"negative": translator or Negative()}, limits, **options)


@contextlib.contextmanager
def running(app: FastAPI, **place: Any) -> Iterator[str]:
    """host:port of a server for the block. It ends as by SIGTERM."""
    server = make_server(app, Place("127.0.0.1", 0, **place), app.state.gantrt.limits)
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.005)
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


@contextlib.contextmanager
def client(app: FastAPI, **place: Any) -> Iterator[httpx.Client]:
    """A client of a running server."""
    with running(app, **place) as address, httpx.Client(base_url=f"http://{address}", timeout=15) as made:
        yield made


def until(true: Any, seconds: float = 5.0) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.005)


def picture(seed: int = 0, height: int = 24, width: int = 32) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def encoded(rgb: Image, suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, np.ascontiguousarray(rgb[..., ::-1]))[1].tobytes()


def decoded(data: bytes) -> Image:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image[..., ::-1]


PNG = {"content-type": "image/png"}
