"""`python -m gantrt` is `gantrt`."""

import io
import signal
import sys


def main() -> int:
    """gantrt.cli.main for a process of its own: also while it starts and ends Ctrl-C shows no traceback."""
    try:
        if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.encoding.lower() == "utf-8":
            sys.stdout.reconfigure(errors="surrogateescape")  # a path goes out as it came in
        from .cli import main as run

        return run()
    except KeyboardInterrupt:
        return 130
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main())
