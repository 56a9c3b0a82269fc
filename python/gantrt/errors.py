"""What can go wrong, by name. Each error carries the exit code the command line returns for it."""

from __future__ import annotations


class GantrtError(Exception):
    """Base of every error gantrt raises on purpose. Its text says who, what was wrong, and what to do."""

    exit_code = 1


class UsageError(GantrtError, ValueError):
    """The request itself makes no sense: an unknown family, preset or key, two flags that exclude each other."""

    exit_code = 2


class EngineMismatch(GantrtError):
    """The engine is sound but not for this machine or version: rebuild it."""

    exit_code = 3


class EngineCorrupt(GantrtError):
    """The file is damaged, or is no engine at all."""

    exit_code = 3


class DeviceUnavailable(GantrtError):
    """The device, or the library that drives it, is not here."""

    exit_code = 4


class UnsupportedInput(GantrtError, ValueError):
    """The picture, clip or array cannot be read, or has a shape or type we do not take."""

    exit_code = 5


class TruncatedInput(UnsupportedInput):
    """The input ended or broke early. What was translated before that is kept and playable."""


class OutOfMemory(GantrtError):
    """There is not enough memory for what was asked, on the machine or on its GPU."""


class BuildFailed(GantrtError):
    """An engine could not be built or exported."""


class GateFailed(GantrtError):
    """A bench or quality gate the caller asked for was not met."""

    exit_code = 6
