"""gantrt in an OpenCV loop.

    python examples/opencv_loop.py ENGINE SOURCE [OUTPUT.mp4]

SOURCE is what cv2.VideoCapture takes: a clip, or the number of a camera. Without OUTPUT it shows a window (q ends it).
"""

from __future__ import annotations

import sys

import cv2
import gantrt


def main(engine: str, source: str, output: str | None = None) -> None:
    capture = cv2.VideoCapture(int(source) if source.isdecimal() else source)
    size = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
    writer = cv2.VideoWriter(output, cv2.VideoWriter.fourcc(*"mp4v"), 25, size) if output else None

    # The six lines.
    with gantrt.load(engine, color="bgr") as t:
        while True:
            ok, frame = capture.read()
            if not ok or not show(t(frame), writer):
                break
        print(t.stats().total)

    if writer is not None:
        writer.release()
    capture.release()


def show(frame: cv2.typing.MatLike, writer: cv2.VideoWriter | None) -> bool:
    """Show or write a frame; False when the viewer has seen enough."""
    if writer is not None:
        writer.write(frame)
        return True
    cv2.imshow("gantrt", frame)
    return cv2.waitKey(1) != ord("q")


if __name__ == "__main__":
    main(*sys.argv[1:])
