"""Numbers of the forms in which files are written. A file of a newer form is refused before anything else is read."""

from __future__ import annotations

from .errors import EngineMismatch

ENGINE = 1  # the manifest, in an .onnx and in a .plan
CHECKPOINT = 1  # what weights say of themselves, and the state beside them
RECIPE = 1  # recipe.json


def refuse_newer(where: object, found: int, known: int) -> None:
    """Raises EngineMismatch if `where`, a file, is of a form that a newer gantrt wrote: it may hold anything."""
    if found > known:
        raise EngineMismatch(f"{where}: schema {found} is newer than this gantrt reads ({known}); upgrade gantrt")
