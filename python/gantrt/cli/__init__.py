"""The command line. The folder is the registry: `cli/<command>.py` is `gantrt <command>` (a trailing _ is dropped).

Each exports HELP (one line), `add_arguments(parser)` and `run(args) -> int`, and imports nothing heavy at the top.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import pkgutil
import sys
from collections.abc import Sequence

from ..errors import GantrtError

log = logging.getLogger("gantrt")


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
    args = build_parser().parse_args(argv)
    _log_to_stderr(args.verbose, args.quiet)
    try:
        return int(args._run(args) or 0)
    except GantrtError as error:
        log.debug("traceback", exc_info=True)
        log.error("%s", error)
        return error.exit_code
    except KeyboardInterrupt:
        log.error("interrupted")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the flush at exit stays silent
        return 141
    except Exception as error:  # the last resort: whatever it is, a user is told in one line
        log.debug("traceback", exc_info=True)
        log.error("%s", _in_a_line(error))
        return GantrtError.exit_code


def _in_a_line(error: Exception) -> str:
    """An error that nobody expected: what the system refused, or a fault of ours."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}" if error.filename else error.strerror.lower()
    gist = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")[:300]
    if isinstance(error, MemoryError) or "allocate memory" in gist:
        return f"there is not enough memory for this ({gist}); close other programs, or ask for less"
    return f"unexpected {type(error).__name__}: {gist}; this is a fault of gantrt: report it with what -v shows"


def _log_to_stderr(verbose: int, quiet: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("gantrt: %(message)s"))
    log.handlers[:] = [handler]
    log.propagate = False
    log.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)
