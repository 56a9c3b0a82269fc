"""`python -m gantrt` is `gantrt`."""

import contextlib
import io
import os
import signal
import sys


def main() -> int:
    """gantrt.cli.main for a process of its own: also while it starts and ends Ctrl-C shows no traceback."""
    try:
        if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.encoding.lower() == "utf-8":
            sys.stdout.reconfigure(errors="surrogateescape")  # a path goes out as it came in
        from .cli import main as run

        code = run()
    except KeyboardInterrupt:
        code = 130
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if code > 128:
        _leave(code)
    return code


def _leave(code: int) -> None:
    """At once. An interrupt can hit Python inside its import lock, which then nobody gives back: a thread that
    imports would wait for it, and the interpreter for that thread. Files are closed, and what is begun is let go."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
