"""A family is networks, one shared forward, and an ordered tuple of phases: alternation is data, not control flow.

The folder `families/` is the registry: `families/<name>.py` exports FAMILY, and `<name>` is its public name.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from gantrt.errors import UsageError
from torch import Tensor, nn
from torch.optim import Optimizer

from .nets.norm import NormMode
from .pool import ImagePool

Batch = Mapping[str, Tensor]  # "a", "b": (N, C, H, W) float in [-1, 1]
Made = dict[str, Tensor]  # what one forward made: "fake_b", "fake_a", "rec_a", ...
Terms = dict[str, Tensor]  # named weighted losses, scalars on the device


def _nothing(nets: nn.ModuleDict) -> None:
    pass


@dataclass(frozen=True)
class Phase:
    """One optimiser step: which networks learn, from which losses."""

    name: str  # "g" or "d": also the optimiser's name and the prefix of its total, "g_loss"; two phases may share it
    trains: tuple[str, ...]  # their names in the ModuleDict; all others are frozen while terms are computed
    terms: Callable[[nn.ModuleDict, Batch, Made], Terms]  # their sum is back-propagated
    due: Callable[[int], bool] = lambda step: True  # whether this phase runs at this step (0-based)
    after: Callable[[nn.ModuleDict], None] = _nothing  # after its optimiser stepped: U-GAT-IT clips rho here


@dataclass(frozen=True)
class SizeRule:
    """Sizes a generator takes: heights and widths divisible by `multiple`; only `fixed` (h, w) if that is set."""

    multiple: int
    fixed: tuple[int, int] | None = None


class Family(ABC):
    """What a file in families/ implements. `config` is an instance of its frozen dataclass `Config`.

    Every Config has at least: channels_a, channels_b, size (training crop, pixels), batch, epochs, lr,
    and every preset in `presets` is a dict of Config fields. Presets called "paper", "fixed" (without the authors'
    slips) and "fast" (fewer and cheaper steps) always exist.
    """

    name: ClassVar[str]
    paper: ClassVar[str]  # "Zhu et al. 2017, arXiv:1703.10593"
    paired: ClassVar[bool]
    Config: ClassVar[type[Any]]
    presets: ClassVar[dict[str, dict[str, Any]]]
    surroundings: ClassVar[dict[str, dict[str, Any]]] = {}  # preset -> keys of the Recipe that it sets as well
    generators: ClassVar[dict[str, str]]  # direction -> name in the ModuleDict, e.g. {"a2b": "g_ab", "b2a": "g_ba"}

    @abstractmethod
    def build(self, config: Any) -> nn.ModuleDict:
        """All networks, freshly initialised as the paper's code does."""

    @abstractmethod
    def forward(self, nets: nn.ModuleDict, batch: Batch, config: Any) -> Made:
        """Run the generators once; every phase of the step shares what this made."""

    def pools(self, config: Any) -> dict[str, ImagePool]:
        """The replay pools its phases draw from, by name; {} where the paper has none."""
        return {}

    @abstractmethod
    def phases(self, config: Any, pools: Mapping[str, ImagePool]) -> tuple[Phase, ...]:
        """The optimiser steps of one training step, in order."""

    @abstractmethod
    def optimizers(self, nets: nn.ModuleDict, config: Any) -> dict[str, Optimizer]:
        """One optimiser per phase, by the phase's name, at the config's base learning rate."""

    def total_steps(self, config: Any, steps_per_epoch: int) -> int:
        """How many steps a training takes: all epochs, unless the paper counts iterations."""
        return int(config.epochs) * steps_per_epoch

    @abstractmethod
    def lr_factor(self, config: Any, step: int, steps_per_epoch: int) -> float:
        """What the base learning rate is multiplied by at this (0-based) step."""

    @abstractmethod
    def size_rule(self, config: Any) -> SizeRule: ...

    def norm_mode(self, config: Any) -> NormMode:
        """What a trained generator's BatchNorm goes by: at batch 1 it only ever knew each picture's own statistics."""
        return "instance" if config.batch == 1 else "running"

    def scalars(self, terms: Terms) -> Terms:
        """Extra values to log, made from all terms of the step (sums the paper or its users plot)."""
        return {}

    def image(self, generator: nn.Module, x: Tensor) -> Tensor:
        """The translated picture alone, (N, C, H, W) in [-1, 1]: what is exported and sampled."""
        return generator(x)  # type: ignore[no-any-return]


def pass_together(net: nn.Module, pictures: Sequence[Tensor]) -> list[Any]:
    """What `net` makes of each batch, in one pass; in several where their sizes differ.

    Equal to passing them one after the other, up to rounding, where the network's statistics are each picture's own.
    """
    if len({batch.shape[1:] for batch in pictures}) > 1:
        return [net(batch) for batch in pictures]
    counts = [len(batch) for batch in pictures]
    out = net(torch.cat(list(pictures)))
    if isinstance(out, Tensor):
        return list(torch.split(out, counts))
    return list(zip(*(torch.split(part, counts) for part in out), strict=True))


def adam(
    nets: nn.ModuleDict, names: tuple[str, ...], lr: float, betas: tuple[float, float], weight_decay: float = 0.0
) -> Optimizer:
    """One Adam for all parameters of the networks called `names`; `weight_decay` is the L2 kind, not AdamW's."""
    parameters = [parameter for name in names for parameter in nets[name].parameters()]
    fused = parameters[0].is_cuda  # one kernel for all of them; the CPU's order of operations stays that of the papers
    return torch.optim.Adam(parameters, lr=lr, betas=betas, weight_decay=weight_decay, fused=fused)


def list_families() -> list[str]:
    from . import families

    return sorted(module.name for module in pkgutil.iter_modules(families.__path__))


def load_family(name: str) -> Family:
    """The family called `name`; UsageError, with the list of those that exist, if there is none."""
    known = list_families()
    if name not in known:
        raise UsageError(f"train: there is no family {name!r}; there are {', '.join(known)}")
    family: Family = importlib.import_module(f"gantrt_training.families.{name}").FAMILY
    return family


def make_config(family: Family, preset: str, overrides: Mapping[str, Any]) -> Any:
    """`Config` from a preset and `--set key=value` overrides; UsageError names unknown presets, keys and bad values."""
    from .overrides import apply_overrides

    if preset not in family.presets:
        raise UsageError(f"{family.name}: there is no preset {preset!r}; there are {', '.join(family.presets)}")
    return apply_overrides(family.Config(**family.presets[preset]), overrides)
