"""The network on a batch of pictures: at once, or in as many runs as memory asks for."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from .engines import Engine
from .errors import OutOfMemory
from .fitting import Tensor
from .memory import is_out_of_memory

log = logging.getLogger("gantrt")


class NetworkRun:
    """Runs an engine; once memory has run out, with fewer pictures at a time. Thread-safe as the engine is."""

    def __init__(self, engine: Engine, path: Path) -> None:
        """path  of the engine file, for what is said of it"""
        self._engine, self._path = engine, path
        self._at_once = engine.manifest.batch
        self._halving = threading.Lock()

    def __call__(self, x: Tensor, y: Tensor) -> None:
        """Write to y what the network makes of x, (N, C, H, W). Raises OutOfMemory where less cannot be tried."""
        begin = 0
        while begin < len(x):
            count = self._at_once
            # Whole arrays as they are: to those an engine stays bound.
            parts = (x, y) if count >= len(x) else (x[begin : begin + count], y[begin : begin + count])
            try:
                self._engine.run(*parts)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if count == 1 or not self._engine.smaller_batches:
                    raise OutOfMemory(_no_memory(self._path.name, x.shape)) from error
                self._halve(count)
            else:
                begin += count

    def _halve(self, count: int) -> None:
        with self._halving:
            if self._at_once == count:  # else another thread did
                self._at_once = (count + 1) // 2
                log.warning("%s: no memory for %d pictures at once; %d from now on", self._path, count, self._at_once)


def _no_memory(name: str, shape: tuple[int, ...]) -> str:
    batch, _, height, width = shape
    pictures = f"{batch} pictures of {height}x{width}" if batch > 1 else f"a picture of {height}x{width}"
    smaller = "export it with a smaller --batch, or" if batch > 1 else "try --fit tile, or"
    return f"{name}: no memory to run {pictures}; {smaller} a smaller --size, or fewer --streams"
