"""One training step of any family, and all that the next one depends on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from gantrt.errors import UsageError
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from .compilation import Compile, compiled
from .data import to_float
from .distributed import World
from .ema import Averages
from .family import Batch, Family, Made, Phase
from .journal import Losses
from .nets.norm import NormMode
from .nets.spectral import iterates
from .nets.synced import synchronise
from .penalties import NO_PENALTIES, Penalties, with_penalties
from .pool import StaticPool
from .randomness import random_state, rehearsal, set_random_state
from .step_graph import CudaCapture, Noted, StepGraphs, make_capturable, refuse_what_no_graph_holds


class Training:
    """A family that learns: its networks, the optimisers that move them, and how far it is."""

    def __init__(
        self,
        family: Family,
        config: Any,
        steps_per_epoch: int,
        fabric: Fabric,
        *,
        accumulate: int = 1,
        clip_grad: float = 0.0,
        ema: float = 0.0,
        penalties: Penalties = NO_PENALTIES,
        sync_batchnorm: bool = False,
        channels_last: bool = False,
        compile: Compile = "none",
        cuda_graph: bool = False,
    ) -> None:
        """
        accumulate      batches whose gradients make one step
        clip_grad       longest gradient of a phase; 0: any
        ema             decay of the generators' moving averages; 0: none are kept
        sync_batchnorm  BatchNorm goes by the pictures of all processes
        channels_last   how weights and pictures lie in memory
        compile         torch.compile's mode, for all networks; they stay as they are in `nets`
        cuda_graph      whole steps are captured and replayed; see step_graph.py
        """
        self.family, self.config, self.fabric, self.steps_per_epoch = family, config, fabric, steps_per_epoch
        self.accumulate = accumulate
        self.world = World(fabric)
        self.done = 0  # steps
        self.order = 0  # of the data; see stability.py
        self.clip_grad = clip_grad
        self.losses = Losses()
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self.nets = family.build(config).to(fabric.device).train()
        self.nets.to(memory_format=self._format)  # type: ignore[call-overload]
        self._synced = bool(sync_batchnorm and self.world.size > 1 and synchronise(self.nets))
        if penalties and compile != "none":
            raise UsageError("train: r1 and gp differentiate a judge twice, compiled ones cannot; set compile=none")
        self._running = compiled(self.nets, compile)
        self.pools = family.pools(config)
        if self.world.rank:
            for pool in self.pools.values():
                pool.differ(self.world.rank)
        capture = CudaCapture(fabric.device) if cuda_graph else None
        static = {name: StaticPool(pool) for name, pool in self.pools.items()} if capture else {}
        self.pools |= static
        self.phases = with_penalties(family, config, family.phases(config, self.pools), penalties)
        self.optimizers = {
            name: _ready(o, fabric, static=cuda_graph) for name, o in family.optimizers(self.nets, config).items()
        }
        self._lr = {name: float(o.param_groups[0]["lr"]) for name, o in self.optimizers.items()}
        self._generators = set(family.generators.values())
        self._iterates = iterates(self.nets)
        self._sets = {phase.trains: _sets(self.nets, set(phase.trains)) for phase in self.phases}
        self.averages = Averages(self.nets, family.generators.values(), ema) if ema else None
        self._graphs: StepGraphs | None = None
        if capture is not None:
            refuse_what_no_graph_holds(
                processes=self.world.size,
                precision=fabric.strategy.precision,
                compile=compile,
                twice=accumulate > 1
                and bool(getattr(config, "dropout", 0.0))
                and not self._moves_generators(self.phases[0]),
            )
            if self.averages is not None:
                self.averages.make_static(fabric.device)
            self._graphs = StepGraphs(self._work, static, capture)

    def step(self, a: Tensor, b: Tensor) -> None:
        """One training step on (accumulate * n, c, h, w) pictures in [-1, 1] on the device.

        The generators run once for all phases. A phase computes its terms right before its backward pass, so it sees
        what earlier phases of the step have made of the networks. What it does not train is frozen meanwhile: no
        gradient is computed that nobody would use.
        """
        due = [phase for phase in self.phases if phase.due(self.done)]
        self._set_lr()
        if self.averages is not None:
            self.averages.begin(self.done)
        for noted in (self._graphs or self._work)(a, b, due):
            self.losses.add(self.done, *noted)
        self.done += 1

    def _work(self, a: Tensor, b: Tensor, due: Sequence[Phase]) -> list[Noted]:
        """The step itself. Nothing in it depends on which step it is but through tensors on the device."""
        a, b = (side.contiguous(memory_format=self._format) for side in (a, b))
        batches = [
            {"a": part_a, "b": part_b}
            for part_a, part_b in zip(a.chunk(self.accumulate), b.chunk(self.accumulate), strict=True)
        ]
        made, noted = self._forward(batches, due), []
        for phase in due:
            optimizer = self.optimizers[phase.name]
            optimizer.zero_grad()
            moved, still = self._sets[phase.trains]
            with _frozen(still):
                names, values = self._backward(phase, batches, made)
            self.world.average([*(p.grad for p in moved if p.grad is not None), values])
            if self.clip_grad:
                self.fabric.clip_gradients(self.nets, optimizer, max_norm=self.clip_grad, error_if_nonfinite=False)
            optimizer.step()
            phase.after(self.nets)
            noted.append(Noted(phase.name, names, values))
        if self.averages is not None and any(map(self._moves_generators, due)):
            self.averages.move(self.nets)
        return noted

    def _moves_generators(self, phase: Phase) -> bool:
        return not self._generators.isdisjoint(phase.trains)

    def _make(self, batch: Batch, graph: bool) -> Made:
        with torch.set_grad_enabled(graph), self.fabric.autocast():
            return self.family.forward(self._running, batch, self.config)

    def _forward(self, batches: Sequence[Batch], due: Sequence[Phase]) -> list[Made]:
        """What the generators make of each batch.

        One batch's graph serves all phases. Of several, only one's is kept at a time, or nothing would be gained over
        a larger batch: the phase that moves the generators makes the pictures again, the same ones.
        """
        moving = [self._moves_generators(phase) for phase in due]
        if len(batches) == 1:
            return [self._make(batches[0], graph=any(moving))]
        if moving and moving[0]:
            return [{} for _ in batches]
        with rehearsal([self.nets[name] for name in self._generators]) if any(moving) else nullcontext():
            return [self._make(batch, graph=False) for batch in batches]

    def _backward(self, phase: Phase, batches: Sequence[Batch], made: list[Made]) -> tuple[tuple[str, ...], Tensor]:
        """Gradients of the phase's terms, their means over the batches; the terms' names and these means, (terms,)."""
        one, seen = len(batches) == 1, []
        before = [] if one else [vector.clone() for vector in self._iterates]
        for index, batch in enumerate(batches):
            if index:  # each batch meets the power iterations where a single large batch would
                for vector, value in zip(self._iterates, before, strict=True):
                    vector.copy_(value)
            if not one and self._moves_generators(phase):
                made[index] = self._make(batch, graph=True)
            with self.fabric.autocast():
                terms = phase.terms(self._running, batch, made[index])
                values = torch.stack([term.float() for term in terms.values()])
            self.fabric.backward(values.sum() / len(batches))
            seen.append(values.detach())
            if not one:
                made[index] = {name: value.detach() for name, value in made[index].items()}
        return tuple(terms), seen[0] if one else torch.stack(seen).mean(0)

    @property
    def shown(self) -> nn.ModuleDict:
        """The networks as they are sampled, judged and exported: with averaged generators, if averages are kept."""
        return self.nets if self.averages is None else self.averages.over(self.nets)

    @property
    def norm_mode(self) -> NormMode:
        """What the trained generators' BatchNorms go by."""
        return "running" if self._synced else self.family.norm_mode(self.config)

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return self.done // self.steps_per_epoch

    def lr(self) -> dict[str, float]:
        """The learning rate of the last step, by phase."""
        return dict(self._lr)

    def state(self) -> dict[str, Any]:
        """All that is not a weight and that the next step depends on; {} in all processes but the first."""
        own = {"pools": {name: pool.state_dict() for name, pool in self.pools.items()}, "random": random_state()}
        if self.world.size > 1:
            own["buffers"] = dict(self.nets.named_buffers())
        processes = self.world.gather(own)
        return {
            "step": self.done,
            "order": self.order,
            "optimizers": {name: optimizer.state_dict()["state"] for name, optimizer in self.optimizers.items()},
            "precision": self.fabric.strategy.precision.state_dict(),
            "processes": processes,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave. Learning rates and the like stay those of the config.

        Raises UsageError if other than as many processes saved it: their pools and random generators cannot be shared
        out anew.
        """
        saved = len(state["processes"])
        if saved != self.world.size:
            start = f"torchrun --nproc-per-node {saved}" if saved > 1 else "one process"
            raise UsageError(
                f"train: the training was saved by {saved} processes, here are {self.world.size}; resume with {start}"
            )
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(optimizer.state_dict() | {"state": state["optimizers"][name]})
        own = state["processes"][self.world.rank]
        for name, pool in self.pools.items():
            pool.load_state_dict(own["pools"][name])
        for name, buffer in self.nets.named_buffers():
            if name in own.get("buffers", {}):
                buffer.copy_(own["buffers"][name])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        set_random_state(own["random"])
        if self._graphs is not None:
            self._graphs.drop()
            self.nets.zero_grad()  # gradients lie in the graphs' memory
        self.done, self.order = int(state["step"]), int(state.get("order", 0))

    def _set_lr(self) -> None:
        factor = self.family.lr_factor(self.config, self.done, self.steps_per_epoch)
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                lr = group["initial_lr"] * factor
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(lr)
                else:
                    group["lr"] = lr
            self._lr[name] = optimizer.param_groups[0]["initial_lr"] * factor


def upload(pictures: Tensor, device: torch.device) -> Tensor:
    """(n, h, w, c) uint8 or uint16 on the CPU → (n, c, h, w) float in [-1, 1] on the device; does not wait for it."""
    if device.type == "cuda":
        pictures = pictures.pin_memory().to(device, non_blocking=True)
    return to_float(pictures)


def _ready(optimizer: Optimizer, fabric: Fabric, *, static: bool) -> Any:
    """The optimiser as the loop uses it: it knows its base rate, and Adam moves all weights in one call.

    static  it is to step within a CUDA graph
    """
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
        if type(optimizer) is torch.optim.Adam and not group["foreach"]:
            group["fused"] = True
    if static:
        make_capturable(optimizer, fabric.device)
    return fabric.setup_optimizers(optimizer)


def _sets(nets: nn.ModuleDict, trained: set[str]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The parameters of the networks that are trained, and those of the others."""

    def of(names: set[str]) -> list[nn.Parameter]:
        return [p for name, net in nets.items() if name in names for p in net.parameters() if p.requires_grad]

    return of(trained), of(set(nets) - trained)


@contextmanager
def _frozen(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    for parameter in parameters:
        parameter.requires_grad = False
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad = True
