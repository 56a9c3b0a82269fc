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
from ..interruption import Interrupted, interruptible

log = logging.getLogger("gantrt")

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


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
    with interruptible():
        try:
            return _run(argv)
        except KeyboardInterrupt as error:
            log.error("interrupted")
            return error.exit_code if isinstance(error, Interrupted) else 130


def _run(argv: Sequence[str] | None) -> int:
    args = build_parser().parse_args(argv)
    _log_to_stderr(args.verbose, args.quiet)
    try:
        code = int(args._run(args) or 0)
        sys.stdout.flush()
        return code
    except GantrtError as error:
        log.debug("traceback", exc_info=True)
        log.error("%s", error)
        return error.exit_code
    except BrokenPipeError:
        _discard_stdout()
        return 141
    except MemoryError as error:
        log.debug("traceback", exc_info=True)
        log.error("out of memory%s; close other programs, or work on less at once", _in_brackets(error))
    except OSError as error:
        log.debug("traceback", exc_info=True)
        log.error("%s", f"{error.filename or 'the system'}: {(error.strerror or str(error) or 'an error').lower()}")
        _discard_stdout()  # it may be what cannot be written
    except Exception as error:
        log.debug("traceback", exc_info=True)
        log.error("unforeseen %s%s; -v shows where, please report it", type(error).__name__, _in_brackets(error))
    return 1


def _in_brackets(error: BaseException) -> str:
    return f" ({error})" if str(error) else ""


def _open_standard_streams() -> None:
    """Give those the caller has closed to /dev/null, lest a file we write gets the number libraries print to."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
    out = sys.stdout
    if isinstance(out, io.TextIOWrapper) and out.errors == "strict":  # a name that is no Unicode is data as others are
        out.reconfigure(errors="surrogateescape" if out.encoding.lower() == "utf-8" else "backslashreplace")


def _discard_stdout() -> None:
    """So that the flush at exit stays silent."""
    with contextlib.suppress(OSError, ValueError):  # one that is no file, or closed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _OneLine(logging.Formatter):
    """A message is one line, whatever a file in it is called; control characters are no terminal's business."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = _CONTROL.sub(lambda found: repr(found[0])[1:-1], record.message)
        return super().formatMessage(record)


def _log_to_stderr(verbose: int, quiet: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("gantrt: %(message)s"))
    log.handlers[:] = [handler]
    log.propagate = False
    log.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)
