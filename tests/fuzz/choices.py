"""Choices read from bytes: so that a fuzzer which changes bytes changes a structure, and sees what that reaches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

T = TypeVar("T")

# What a number, a word, a list or an object of JSON may be turned into.
HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 3, 7, 255, 1 << 16, (1 << 16) + 1, (1 << 31) - 1, 1 << 31, 1 << 63, 1 << 64),
    *(10**400, -(10**400), 0.5, -0.0, 1e-320, 1e308, math.nan, math.inf, -math.inf),
    *("", "x", "1", "-1", "1e999", "nan", "9" * 5000, "\0", "\ud800", "../../etc/passwd", "a" * 3000, "fp32", "b2a"),
    *([], [1], [0, 0], ["x"], [[]], [None, None], [math.nan, math.nan], {}, {"x": 1}, {"": {}}, {"name": 1}, [{}]),
)


class Choices:
    """Reads its bytes from front to back; when they are used up, every choice is the first."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def number(self, least: int, most: int) -> int:
        count = (most - least).bit_length() + 7 >> 3
        piece = self._data[self._at : self._at + count]
        self._at += count
        return least + int.from_bytes(piece, "little") % (most - least + 1)

    def one_of(self, values: Sequence[T]) -> T:
        return values[self.number(0, len(values) - 1)]

    def rest(self) -> bytes:
        piece, self._at = self._data[self._at :], len(self._data)
        return piece


def spoilt(value: Any, choices: Choices, times: int = 3) -> Any:
    """A copy of what JSON holds in which some places were given a hostile value, or taken away."""
    for _ in range(choices.number(0, times)):
        value = _spoilt_once(value, choices)
    return value


def _spoilt_once(value: Any, choices: Choices) -> Any:
    if isinstance(value, dict) and value and choices.number(0, 7):
        key = choices.one_of(list(value))
        if choices.number(0, 15) == 1:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: _spoilt_once(value[key], choices)}
    if isinstance(value, list) and value and choices.number(0, 3):
        at = choices.number(0, len(value) - 1)
        return [*value[:at], _spoilt_once(value[at], choices), *value[at + 1 :]]
    return choices.one_of(HOSTILE)
