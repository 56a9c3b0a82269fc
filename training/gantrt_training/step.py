"""One training step of any family, and all that the next one depends on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from .data import to_float
from .ema import Averages
from .family import Family
from .journal import Losses
from .randomness import random_state, set_random_state


class Training:
    """A family that learns: its networks, the optimisers that move them, and how far it is."""

    def __init__(self, family: Family, config: Any, steps_per_epoch: int, fabric: Fabric, *, ema: float = 0.0) -> None:
        """ema  decay of the generators' moving averages; 0: none are kept"""
        self.family, self.config, self.fabric, self.steps_per_epoch = family, config, fabric, steps_per_epoch
        self.done = 0  # steps
        self.losses = Losses()
        self.nets = family.build(config).to(fabric.device).train()
        self.pools = family.pools(config)
        self.phases = family.phases(config, self.pools)
        self.optimizers = {name: _ready(o, fabric) for name, o in family.optimizers(self.nets, config).items()}
        self._others = [_parameters(self.nets, set(self.nets) - set(phase.trains)) for phase in self.phases]
        self._generators = set(family.generators.values())
        self.averages = Averages(self.nets, family.generators.values(), ema) if ema else None

    def step(self, a: Tensor, b: Tensor) -> None:
        """One training step on a batch, (n, c, h, w) in [-1, 1] on the device.

        The generators run once for all phases. A phase computes its terms right before its backward pass, so it sees
        what earlier phases of the step have made of the networks. What it does not train is frozen meanwhile: no
        gradient is computed that nobody would use.
        """
        batch = {"a": a, "b": b}
        due = [(phase, others) for phase, others in zip(self.phases, self._others, strict=True) if phase.due(self.done)]
        self._set_lr()
        learns = any(not self._generators.isdisjoint(phase.trains) for phase, _ in due)
        with torch.set_grad_enabled(learns), self.fabric.autocast():
            made = self.family.forward(self.nets, batch, self.config)
        for phase, others in due:
            optimizer = self.optimizers[phase.name]
            with _frozen(others):
                with self.fabric.autocast():
                    terms = phase.terms(self.nets, batch, made)
                    values = torch.stack([term.float() for term in terms.values()])
                optimizer.zero_grad()
                self.fabric.backward(values.sum())
            optimizer.step()
            phase.after(self.nets)
            self.losses.add(self.done, phase.name, tuple(terms), values.detach())
        if learns and self.averages is not None:
            self.averages.update(self.nets, self.done)
        self.done += 1

    @property
    def shown(self) -> nn.ModuleDict:
        """The networks as they are sampled, judged and exported: with averaged generators, if averages are kept."""
        return self.nets if self.averages is None else self.averages.over(self.nets)

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return self.done // self.steps_per_epoch

    def lr(self) -> dict[str, float]:
        """The learning rate of the last step, by phase."""
        return {name: float(optimizer.param_groups[0]["lr"]) for name, optimizer in self.optimizers.items()}

    def state(self) -> dict[str, Any]:
        """All that is not a weight and that the next step depends on."""
        return {
            "step": self.done,
            "optimizers": {name: optimizer.state_dict()["state"] for name, optimizer in self.optimizers.items()},
            "pools": {name: pool.state_dict() for name, pool in self.pools.items()},
            "precision": self.fabric.strategy.precision.state_dict(),
            "random": random_state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave. Learning rates and the like stay those of the config."""
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(optimizer.state_dict() | {"state": state["optimizers"][name]})
        for name, pool in self.pools.items():
            pool.load_state_dict(state["pools"][name])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        set_random_state(state["random"])
        self.done = int(state["step"])

    def _set_lr(self) -> None:
        factor = self.family.lr_factor(self.config, self.done, self.steps_per_epoch)
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor


def upload(pictures: Tensor, device: torch.device) -> Tensor:
    """(n, h, w, c) uint8 or uint16 on the CPU → (n, c, h, w) float in [-1, 1] on the device; does not wait for it."""
    if device.type == "cuda":
        pictures = pictures.pin_memory().to(device, non_blocking=True)
    return to_float(pictures)


def _ready(optimizer: Optimizer, fabric: Fabric) -> Any:
    """The optimiser as the loop uses it: it knows its base rate, and Adam moves all weights in one call."""
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
        if type(optimizer) is torch.optim.Adam and not group["foreach"]:
            group["fused"] = True
    return fabric.setup_optimizers(optimizer)


def _parameters(nets: nn.ModuleDict, names: set[str]) -> list[nn.Parameter]:
    return [p for name, net in nets.items() if name in names for p in net.parameters() if p.requires_grad]


@contextmanager
def _frozen(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    for parameter in parameters:
        parameter.requires_grad = False
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad = True
