"""What strangers' bytes meet first, one file each. The folder is the registry: `fuzz/<target>.py` is a target.

Each exports
    ALLOWED    errors that say what is wrong with the bytes; any other is a fault of ours
    seeds()    sound inputs, some hundred bytes to some kilobytes each, the same every time
    run(data)  hands the bytes to the code under test, and asserts what must hold of what it makes of them

tests/test_fuzz.py tries a fixed number of inputs in CI; `make fuzz` (bench/fuzz.py) lets libFuzzer, which sees what an
input reaches, go on for minutes. `corpus/<target>/` keeps inputs that once were too much, and are tried every time.
"""

from __future__ import annotations

import importlib
import pkgutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from gantrt.errors import GantrtError

CORPUS = Path(__file__).parent / "corpus"
_HELPERS = {"choices", "mutations"}


def list_targets() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _HELPERS)


def load_target(name: str) -> Any:
    return importlib.import_module(f".{name}", __name__)


def kept(name: str) -> list[bytes]:
    """The inputs in the corpus of a target, in the order of their names."""
    return [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]


_SCRATCH = tempfile.TemporaryDirectory(prefix="gantrt-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)


def scratch_file(name: str, data: bytes) -> Path:
    """A file with this content, for code that takes a path; the next of that name takes its place."""
    path = Path(_SCRATCH.name) / name
    path.write_bytes(data)
    return path


def each_reads(path: Path, readers: Iterable[Callable[[Path], object]]) -> None:
    """Every reader gets the file, whatever those before it said; raises the first GantrtError there was."""
    errors = []
    for read in readers:
        try:
            read(path)
        except GantrtError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def fault(target: Any, data: bytes) -> Exception | None:
    """What the target ended with, if it is no error that it may end with."""
    try:
        target.run(data)
    except target.ALLOWED:
        return None
    except Exception as error:
        return error
    return None
