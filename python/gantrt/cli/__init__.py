"""The command line. The folder is the registry: `cli/<command>.py` is `gantrt <command>` (a trailing _ is dropped).

Each exports HELP (one line), `add_arguments(parser)` and `run(args) -> int`, and imports nothing heavy at the top.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import logging
import os
import pkgutil
import re
import sys
from collections.abc import Sequence

from ..errors import GantrtError
from ..interruption import interruptible

log = logging.getLogger("gantrt")

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def list_commands() -> dict[str, str]:
    """Command name -> module name."""
    return {module.name.rstrip("_"): module.name for module in pkgutil.iter_modules(__path__)}


def build_parser() -> argparse.ArgumentParser:
    from .. import __version__

    parser = argparse.ArgumentParser(prog="gantrt", description="Image-to-image GANs from training to real time.")
    parser.add_argument("--version", action="version", version=f"gantrt {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command, module_name in list_commands().items():
        module = importlib.import_module(f".{module_name}", __name__)
        sub = commands.add_parser(command, help=module.HELP, description=module.HELP)
        module.add_arguments(sub)
        sub.add_argument("-v", "--verbose", action="count", default=0, help="more detail; with an error, its traceback")
        sub.add_argument("-q", "--quiet", action="store_true", help="errors only")
        sub.set_defaults(_run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, or the code of the GantrtError it ended with."""
    _open_standard_streams()
    with interruptible() as signals:
        try:
            return _run(argv)
        except (Exception, KeyboardInterrupt) as error:
            if not signals and not isinstance(error, KeyboardInterrupt):
                return _tell(error)
            # What an interrupted library makes of it is no error: a module it was importing "failed".
            log.debug("traceback", exc_info=True)
            log.error("interrupted")
            return 128 + signals[0] if signals else 130


def _run(argv: Sequence[str] | None) -> int:
    args = build_parser().parse_args(argv)
    _log_to_stderr(args.verbose, args.quiet)
    code = int(args._run(args) or 0)
    sys.stdout.flush()
    return code


def _tell(error: Exception) -> int:
    """What went wrong, in one line. Returns its exit code."""
    if isinstance(error, BrokenPipeError):
        _discard_stdout()
        return 141
    log.debug("traceback", exc_info=error)
    if isinstance(error, GantrtError):
        log.error("%s", error)
        return error.exit_code
    if isinstance(error, MemoryError) or "allocate memory" in str(error):  # torch's is a RuntimeError
        log.error("out of memory%s; close other programs, or work on less at once", _in_brackets(error))
    elif isinstance(error, OSError):
        log.error("%s", f"{error.filename or 'the system'}: {(error.strerror or str(error) or 'an error').lower()}")
        _discard_stdout()  # it may be what cannot be written
    else:
        log.error("unforeseen %s%s; -v shows where, please report it", type(error).__name__, _in_brackets(error))
    return 1


def _in_brackets(error: BaseException) -> str:
    gist = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f" ({gist[:300]})" if gist else ""


def _open_standard_streams() -> None:
    """Give those the caller has closed to /dev/null, lest a file we write gets the number libraries print to."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":  # of names that are no Unicode
        sys.stdout.reconfigure(errors="backslashreplace")


def _discard_stdout() -> None:
    """So that the flush at exit stays silent."""
    with contextlib.suppress(OSError, ValueError):  # one that is no file, or closed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _OneLine(logging.Formatter):
    """A message is one line of Unicode, whatever a file in it is called, and nothing a terminal would obey."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = _CONTROL.sub(lambda found: repr(found[0])[1:-1], record.message)
        return super().formatMessage(record)


def _log_to_stderr(verbose: int, quiet: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("gantrt: %(message)s"))
    log.handlers[:] = [handler]
    log.propagate = False
    log.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)
