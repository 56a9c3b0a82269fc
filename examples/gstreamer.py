"""gantrt between two GStreamer pipelines: appsink gives frames, appsrc takes them.

    python examples/gstreamer.py ENGINE 'v4l2src ! videoconvert' 'videoconvert ! autovideosink'
    python examples/gstreamer.py ENGINE 'filesrc location=in.mp4 ! decodebin ! videoconvert' \\
                                        'videoconvert ! x264enc ! mp4mux ! filesink location=out.mp4'

Times are handed on, so the output is in step with the input. `max-buffers=1 drop=true` is the newest-wins of a live
source; for a file it is left out, and every frame is translated.
"""

from __future__ import annotations

import sys

import gantrt
import gi
import numpy as np

gi.require_version("Gst", "1.0")
gi.require_version("GstApp", "1.0")
from gi.repository import Gst, GstApp  # noqa: E402, F401 (GstApp adds pull_sample and push_buffer)

FORMAT = "video/x-raw,format=RGB"


def main(engine: str, before: str, after: str) -> None:
    with gantrt.load(engine) as t:  # before GStreamer loads its plugins, which bring libraries of their own
        Gst.init(None)
        queue = "max-buffers=1 drop=true" if "v4l2src" in before or "rtspsrc" in before else "max-buffers=2"
        source = Gst.parse_launch(f"{before} ! {FORMAT} ! appsink name=frames sync=false {queue}")
        sink = Gst.parse_launch(f"appsrc name=frames format=time block=true max-buffers=2 ! {after}")
        frames, made = source.get_by_name("frames"), sink.get_by_name("frames")
        for pipeline in (source, sink):
            pipeline.set_state(Gst.State.PLAYING)
        count = 0
        while (sample := frames.pull_sample()) is not None:
            caps = sample.get_caps()
            made.set_caps(caps)
            made.push_buffer(translated(t, sample.get_buffer(), caps.get_structure(0)))
            count += 1
        made.end_of_stream()
        message = sink.get_bus().timed_pop_filtered(Gst.CLOCK_TIME_NONE, Gst.MessageType.EOS | Gst.MessageType.ERROR)
        for pipeline in (source, sink):
            pipeline.set_state(Gst.State.NULL)
    if message.type == Gst.MessageType.ERROR:
        sys.exit(str(message.parse_error()))
    print(f"{count} frames")


def translated(t: gantrt.Translator, buffer: Gst.Buffer, caps: Gst.Structure) -> Gst.Buffer:
    """A frame's translation, at its time. GStreamer's rows are multiples of four bytes long."""
    width, height = caps.get_value("width"), caps.get_value("height")
    row = -(-3 * width // 4) * 4
    rows = np.frombuffer(buffer.extract_dup(0, buffer.get_size()), np.uint8)[: row * height].reshape(height, row)
    out = np.zeros((height, row), np.uint8)
    pixels = np.ascontiguousarray(rows[:, : 3 * width]).reshape(height, width, 3)
    out[:, : 3 * width] = t(pixels).reshape(height, 3 * width)
    result = Gst.Buffer.new_wrapped(out.tobytes())
    result.pts, result.duration = buffer.pts, buffer.duration
    return result


if __name__ == "__main__":
    main(*sys.argv[1:])
