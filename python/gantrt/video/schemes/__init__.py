"""Inputs and outputs that are no files. The folder is the registry: each file here serves the schemes it names.

Each exports
    SCHEMES         what stands before the colon: ("camera",) for camera:0; "-" is a name of its own
    USAGE           how its specs are written, for messages
    source(spec) -> FrameSource                    where it is an input
    sink(spec, like, options) -> FrameSink         where it is an output
    STREAMS         whether a sink of it shows frames as they come, rather than making a file
and imports what it needs beyond this package inside those functions only.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import re
from typing import Any, Literal

from ...errors import UsageError

Kind = Literal["source", "sink"]

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):(?!\\)")  # two letters at least: C:\ is a drive


def find(spec: str, kind: Kind) -> Any:
    """The module that serves `spec` as an input ("source") or output ("sink"); None where `spec` is a path.

    Raises UsageError for an output of a scheme there is not, lest it become a file of that name.
    """
    match = _SCHEME.match(spec)
    name = "-" if spec == "-" else match[1] if match else None
    module = modules().get(name or "")
    if name is None or hasattr(module, kind):
        return module if name else None
    if kind == "source":
        return None  # a file may be called so
    raise UsageError(f"{spec}: no such output; there are files, folders and {usage('sink')}")


def usage(kind: Kind) -> str:
    """How the specs of a kind are written, in one line."""
    return ", ".join(sorted({module.USAGE for module in modules().values() if hasattr(module, kind)}))


@functools.cache
def modules() -> dict[str, Any]:
    """Scheme -> module."""
    found = [importlib.import_module(f".{module.name}", __name__) for module in pkgutil.iter_modules(__path__)]
    return {scheme: module for module in found for scheme in module.SCHEMES}
