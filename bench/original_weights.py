"""Do the original code-bases and gantrt learn the same? Both start with the same weights and see the same pictures.

    python bench/original_weights.py --ugatit DIR --cyclegan DIR --discogan DIR [--family F ...]

The originals run as they are (original_steps.py); their first weights come into our networks through our importers.
Then both make the same steps of preset `paper`, with the same random numbers where there is dropout, until all networks
have learned once: one step, two of DiscoGAN. On a CPU, small widths, in float64: in float32 Adam makes a step as long
as any other of a gradient that is rounding and nothing else. (Our losses are float32 all the same.) Told are
    gradient     of the generators in the last step: how far they are apart, against their length
    generators   how far the weights are apart after the steps, against how far they have come
    judges       the same of the discriminators
Writes bench/results/original_weights.json.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from gantrt_training import importers
from gantrt_training.devices import open_fabric
from gantrt_training.recipe import make_recipe
from gantrt_training.step import Training
from original_steps import CODE_BASES, Job, Parts, commit  # the scripts beside this one
from originals import FAMILIES, Enough, overrides
from torch import Tensor, nn

from training import RESULTS, machine

STEPS = {"discogan": 2}  # judges learn in the first of three, generators in the others


@dataclass(frozen=True)
class Known(Job):
    """A job whose pictures, (batch, channels, size, size) in [-1, 1], are given."""

    a: Tensor
    b: Tensor

    def pictures(self, low: float = -1.0) -> tuple[Tensor, Tensor]:
        """DiscoGAN takes BGR in [0, 1]."""
        if low == -1.0:
            return self.a, self.b
        a, b = ((side.flip(1) + 1) / 2 for side in (self.a, self.b))
        return a, b


class Twin:
    """Called ahead of each step of the original: makes the one that it has just made, and ends after `steps`."""

    def __init__(self, job: Known, steps: int) -> None:
        self.job, self.steps = job, steps
        self.family = make_recipe(job.family, "", "paper", {}).load_family()
        self.training = Training(self.family, job.config, 1000, open_fabric("cpu", "fp32"))
        self.made = -1
        self.row: dict[str, float] = {}
        self._begin: dict[str, dict[str, Tensor]] = {}
        self._random = torch.get_rng_state()

    def __call__(self, parts: Parts) -> None:
        if self.made < 0:
            self._begin = {name: as_ours(net) for name, net in parts.nets.items()}
            for name, weights in self._begin.items():
                self.training.nets[name].load_state_dict(weights)
        else:
            with random_numbers(self._random):
                self.training.step(self.job.a, self.job.b)
        self.made += 1
        if self.made == self.steps:
            self.row = self._compare(parts)
            raise Enough
        self._random = torch.get_rng_state()

    def _compare(self, parts: Parts) -> dict[str, float]:
        makers = set(self.family.generators.values())
        slopes = self._slopes({name: parts.nets[name] for name in makers})
        row = {"gradient": apart(*zip(*slopes, strict=True))}
        for kind, names in (("generators", makers), ("judges", set(parts.nets) - makers)):
            theirs, ours, begin = [], [], []
            for name in sorted(names):
                weights = as_ours(parts.nets[name])
                for key, value in self.training.nets[name].named_parameters():
                    theirs.append(weights[key])
                    ours.append(value.detach())
                    begin.append(self._begin[name][key])
            row[kind] = apart(theirs, ours, begin)
        return row

    def _slopes(self, nets: Mapping[str, nn.Module]) -> Iterator[tuple[Tensor, Tensor]]:
        for name, net in nets.items():
            given = {key: p.grad for key, p in net.named_parameters() if p.grad is not None}
            theirs = as_ours(net, given)
            for key, value in self.training.nets[name].named_parameters():
                assert value.grad is not None
                yield theirs[key], value.grad


def as_ours(net: nn.Module, instead: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """What an original network holds, under our names and in our order of channels, as our importers have it.

    instead  tensors in place of its own
    """
    tensors = {key: value.detach().clone() for key, value in (net.state_dict() | dict(instead or {})).items()}
    for module in pkgutil.iter_modules(importers.__path__):
        found = importlib.import_module(f"{importers.__name__}.{module.name}").recognise(tensors)
        if found is not None:
            return dict(found.weights)
    raise SystemExit(f"original_weights: no importer knows {type(net).__name__}")


def apart(theirs: Any, ours: Any, begin: Any = None) -> float:
    """|theirs - ours| / |theirs - begin|, over all tensors; begin: None for zero."""
    one, other = (torch.cat([value.flatten().double() for value in side]) for side in (theirs, ours))
    way = one if begin is None else one - torch.cat([value.flatten().double() for value in begin])
    return float((one - other).norm() / way.norm())


@contextlib.contextmanager
def random_numbers(state: Tensor) -> Iterator[None]:
    """Within this, torch's random numbers are those that follow `state`; afterwards as if nothing had drawn any."""
    before = torch.get_rng_state()
    torch.set_rng_state(state)
    try:
        yield
    finally:
        torch.set_rng_state(before)


def measure(family: str, folder: Path) -> dict[str, Any]:
    small = argparse.Namespace(full=False, size=None, ngf=None, batch=None)
    config = make_recipe(family, "", "paper", overrides(family, small)).config
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    a, b = (torch.rand(config.batch, 3, config.size, config.size) * 2 - 1 for _ in range(2))
    twin = Twin(Known(family, config, torch.device("cpu"), a, b), STEPS.get(family, 1))
    doubles = mock.patch.object(torch, "FloatTensor", torch.as_tensor)  # DiscoGAN names the type of its pictures
    with contextlib.suppress(Enough), doubles:
        CODE_BASES[FAMILIES[family]].run(folder, twin.job, twin)
    return {"family": family, "steps": twin.made, **{name: float(f"{value:.2g}") for name, value in twin.row.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, code_base in CODE_BASES.items():
        parser.add_argument(f"--{name}", type=Path, metavar="DIR", help=f"a clone of {code_base.url}")
    parser.add_argument("--family", nargs="+", choices=FAMILIES, help="default: all whose clone is given")
    args = parser.parse_args()
    given = {family: getattr(args, of) for family, of in FAMILIES.items() if getattr(args, of)}
    chosen = args.family or list(given)
    if not chosen or set(chosen) - set(given):
        parser.error("give the clones of what is to be compared: " + ", ".join(f"--{name} DIR" for name in CODE_BASES))
    for reason in filter(None, (CODE_BASES[FAMILIES[family]].refusal(given[family]) for family in chosen)):
        parser.error(reason)
    report = {
        "what": "one step of the original code-bases and of ours, from the same weights: how far they are apart",
        "command": " ".join(["python", *sys.argv]),
        "date": date.today().isoformat(),
        "machine": machine("cpu"),
        "originals": {
            name: {"url": CODE_BASES[name].url, "commit": commit(getattr(args, name))}
            for name in dict.fromkeys(FAMILIES[family] for family in chosen)
        },
        "rows": [],
    }
    path = RESULTS / "original_weights.json"
    for family in chosen:
        row = measure(family, given[family])
        report["rows"].append(row)  # type: ignore[attr-defined]
        path.write_text(json.dumps(report, indent=2) + "\n")
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    print(path)


if __name__ == "__main__":
    main()
