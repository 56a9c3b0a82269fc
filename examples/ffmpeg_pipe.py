"""Raw frames from one ffmpeg, translated, to another.

    python examples/ffmpeg_pipe.py ENGINE IN.mp4 OUT.mp4 WIDTHxHEIGHT RATE

Without any code, and with the size and rate taken from the stream:

    ffmpeg -i IN.mp4 -f yuv4mpegpipe - | gantrt translate --engine ENGINE - -o - | ffmpeg -i - OUT.mp4
"""

from __future__ import annotations

import subprocess
import sys

import gantrt
import numpy as np


def main(engine: str, source: str, output: str, size: str, rate: str) -> None:
    width, height = map(int, size.split("x"))
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24"]
    reading = ["ffmpeg", "-v", "error", "-i", source, "-vf", f"scale={width}:{height}", *raw, "-"]
    writing = ["ffmpeg", "-v", "error", *raw, "-s", size, "-r", rate, "-i", "-", "-pix_fmt", "yuv420p", "-y", output]
    frame = np.empty((height, width, 3), np.uint8)
    with (
        gantrt.load(engine) as t,
        subprocess.Popen(reading, stdout=subprocess.PIPE) as reader,
        subprocess.Popen(writing, stdin=subprocess.PIPE) as writer,
    ):
        while reader.stdout.readinto(frame.data.cast("B")) == frame.nbytes:
            writer.stdin.write(t(frame, out=frame).data)


if __name__ == "__main__":
    main(*sys.argv[1:])
