"""A layout is how a code-base names the tensors of its networks, and what they are here.

The folder `importers/` is the registry: `importers/<layout>.py` exports CODE_BASE, NAMES and `recognise`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .foreign import Tensors

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class Unlike(Exception):
    """Why a network of a known code-base is none that we can build."""


@dataclass(frozen=True)
class Network:
    """What a layout made of a group of tensors."""

    families: tuple[str, ...]  # those it can belong to; of a generator: one
    weights: Tensors  # in our keys
    config: dict[str, Any]  # what its shapes say, by the keys of the family's Config
    channels: tuple[int, int] | None = None  # of what a generator takes and makes; None: a discriminator
    assumed: tuple[str, ...] = ()  # what no tensor says
    dropped: tuple[str, ...] = ()  # keys that it does not use


@dataclass(frozen=True)
class Layout:
    """What a file in importers/ exports."""

    code_base: str  # who writes such files
    names: Mapping[str, str]  # what its networks are called there -> here; the first for one that has no name
    read: Callable[[Tensors], Network | None]

    def recognise(self, tensors: Tensors) -> Network | None:
        """The network, or None if it is laid out otherwise. Raises Unlike if it is not, but ours cannot be it."""
        try:
            return self.read(tensors)
        except (LookupError, ValueError, RuntimeError) as error:
            raise Unlike(f"a tensor is missing or of another shape ({error})") from error


def list_layouts() -> list[Layout]:
    from . import importers

    modules = [
        importlib.import_module(f"{importers.__name__}.{m.name}") for m in pkgutil.iter_modules(importers.__path__)
    ]
    return [Layout(module.CODE_BASE, module.NAMES, module.recognise) for module in modules]


def rename(tensors: Tensors, prefixes: Mapping[str, str], leaves: Mapping[str, str] | None = None) -> Tensors:
    """`tensors` under our names: "a.b.weight" has the prefix "a.b" and the leaf "weight".

    Raises Unlike for a key without a new name, except statistics of layers that do not track them: these are left out.
    """
    renamed = {}
    for key, tensor in tensors.items():
        prefix, _, leaf = key.rpartition(".")
        if prefix in prefixes:
            renamed[f"{prefixes[prefix]}.{(leaves or {}).get(leaf, leaf)}"] = tensor
        elif leaf not in STATISTICS:
            raise Unlike(f"has a layer {key!r} that the network of that code-base has not")
    return renamed


def untracked(tensors: Tensors, prefixes: Mapping[str, str]) -> tuple[str, ...]:
    """The keys that `rename` leaves out."""
    return tuple(key for key in tensors if key.rpartition(".")[0] not in prefixes)
