"""Another build of the C++ core in place of the installed one: one that checks itself as it runs."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def use(folder: str | Path) -> None:
    """Load `folder`/_core*.so as gantrt._core. Before anything else of gantrt is imported."""
    import gantrt

    (library,) = Path(folder).glob("_core*.so")
    spec = importlib.util.spec_from_file_location("gantrt._core", library)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gantrt._core"] = module
    spec.loader.exec_module(module)
    gantrt._core = module
