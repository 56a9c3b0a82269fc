"""Another build of the C++ core in place of the installed one: one that checks itself as it runs."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType


class _Finder:
    def __init__(self, library: Path) -> None:
        self._library = library

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return importlib.util.spec_from_file_location(name, self._library) if name == "gantrt._core" else None


def use(folder: str | Path) -> None:
    """From now on gantrt._core is `folder`/_core*.so. Before anything of gantrt is imported."""
    if "gantrt._core" in sys.modules:
        raise RuntimeError("gantrt has loaded its own core already")
    (library,) = Path(folder).glob("_core*.so")
    sys.meta_path.insert(0, _Finder(library))
