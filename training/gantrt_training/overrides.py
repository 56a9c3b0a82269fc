"""`key=value` from text to the fields of a dataclass, by the types those fields declare."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

from gantrt.errors import UsageError

from .bounds import check_bounds
from .sizes import HeightWidth, make_size

C = TypeVar("C")


def apply_overrides(config: C, overrides: Mapping[str, Any], known: Sequence[str] | None = None) -> C:
    """A copy of the dataclass `config` with these fields changed; text is read as the field's type.

    Raises UsageError, which names the key and those that exist (`known`; None: all), or the value and what it must be.
    """
    types_ = typing.get_type_hints(type(config))
    names = known or tuple(field.name for field in dataclasses.fields(config))  # type: ignore[arg-type]
    changed = {}
    for key, value in overrides.items():
        if key not in names:
            raise UsageError(unknown_key(key, names))
        try:
            changed[key] = parse(value, types_[key])
        except (ValueError, TypeError, OverflowError) as error:
            raise UsageError(f"{key}={str(value)[:80]}: must be {describe(types_[key])}") from error
    try:
        replaced = dataclasses.replace(config, **changed)  # type: ignore[type-var]
        check_bounds(replaced)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return replaced


def parse(value: Any, wanted: Any) -> Any:
    """`value`, text or not, as the type `wanted`; ValueError if it cannot be that."""
    origin, inner = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (typing.Union, types.UnionType):
        if type(None) in inner and (value is None or str(value).strip().lower() == "none"):
            return None
        return _parse_first(value, [kind for kind in inner if kind is not type(None)])
    if wanted is HeightWidth:
        return _parse_size(value)
    if origin is Literal:
        return next(choice for choice in inner if _same(choice, value)) if _is_choice(value, inner) else _refuse(value)
    if origin is tuple:
        return _parse_tuple(value, inner)
    if wanted is bool:
        return _parse_bool(value)
    if wanted in (int, float):
        return _parse_number(value, wanted)
    return value if isinstance(value, str) and wanted is str else _refuse(value)


def describe(wanted: Any) -> str:
    """A type in words, for an error."""
    origin, inner = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (typing.Union, types.UnionType):
        return " or ".join("none" if kind is type(None) else describe(kind) for kind in inner)
    if origin is Literal:
        return "one of " + ", ".join(str(choice) for choice in inner)
    if origin is tuple:
        return f"{describe(inner[0])}, several with commas between"
    return {HeightWidth: "HxW", bool: "true or false", int: "a whole number", float: "a number", str: "text"}[wanted]


def unknown_key(key: str, names: Sequence[str]) -> str:
    """What an error says of a key that does not exist."""
    near = difflib.get_close_matches(key, names, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"there is no key {key!r}; {hint}there are {', '.join(names)}"


def _parse_first(value: Any, kinds: list[Any]) -> Any:
    for kind in kinds:
        try:
            return parse(value, kind)
        except (ValueError, TypeError):
            continue
    return _refuse(value)


def _parse_tuple(value: Any, inner: tuple[Any, ...]) -> tuple[Any, ...]:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)):
        return _refuse(value)  # type: ignore[no-any-return]
    kinds = [inner[0]] * len(items) if inner[-1] is Ellipsis else list(inner)
    if len(kinds) != len(items):
        _refuse(value)
    return tuple(parse(item, kind) for item, kind in zip(items, kinds, strict=True))


def _parse_size(value: Any) -> Any:
    height, width = value.lower().split("x") if isinstance(value, str) else value
    sides = [_parse_number(side, int) for side in (height, width)]
    return make_size(*sides) if min(sides) > 0 else _refuse(value)


def _parse_bool(value: Any) -> bool:
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    word = str(value).strip().lower()
    return words[word] if word in words and isinstance(value, (str, bool)) else bool(_refuse(value))


def _parse_number(value: Any, wanted: type[Any]) -> Any:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        _refuse(value)
    if wanted is int and isinstance(value, float) and not value.is_integer():
        _refuse(value)
    number = wanted(value)
    return number if math.isfinite(number) else _refuse(value)


def _is_choice(value: Any, choices: tuple[Any, ...]) -> bool:
    return any(_same(choice, value) for choice in choices)


def _same(choice: Any, value: Any) -> bool:
    return bool(choice == value) or str(choice).lower() == str(value).strip().lower()


def _refuse(value: Any) -> Any:
    raise ValueError(value)
