"""The newest frame of a camera, translated, in a loop of your own.

    python examples/live_camera.py ENGINE SOURCE [FRAMES]

SOURCE is camera:0, rtsp://..., screen: or fake:CLIP. Frames that come while the network works are dropped, so what is
shown is never old; a camera that is unplugged is found again.
"""

from __future__ import annotations

import sys
import time

import gantrt
from gantrt.video import open_source


def main(engine: str, spec: str, frames: str = "100") -> None:
    with gantrt.load(engine) as t, open_source(spec) as source:
        for item in t.stream(source):
            age = (time.perf_counter() - item.captured) * 1e3
            print(f"frame {item.index}: {item.image.shape[1]}x{item.image.shape[0]}, {age:.0f} ms old")
            if item.index + 1 == int(frames):
                break


if __name__ == "__main__":
    main(*sys.argv[1:])
