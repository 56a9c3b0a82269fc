"""`python -m gantrt` is `gantrt`."""

import signal
import sys


def main() -> int:
    """gantrt.cli.main for a process of its own: also while it starts and ends Ctrl-C shows no traceback."""
    try:
        from .cli import main as run

        return run()
    except KeyboardInterrupt:
        return 130
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main())
