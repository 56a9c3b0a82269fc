"""Metrics of the test pictures while a training goes on: which of its checkpoints is the best."""

from __future__ import annotations

import dataclasses
import logging
from statistics import fmean
from typing import Any

import numpy as np
import torch
from gantrt.errors import UsageError
from torch import nn

from .checkpoint import Score
from .data import Data, Side, to_float, to_pictures
from .evaluation import evaluate, make_side
from .family import Family
from .metrics import METRICS, choose
from .metrics.feature_cache import FeatureCache, default_cache_file
from .metrics.grader import Grader
from .nets.norm import NormMode, batch_norm_as
from .pictures import Picture
from .recipe import Recipe

log = logging.getLogger("gantrt")

_WITHOUT_WEIGHTS = ("l1", "psnr", "ssim")
_WITHOUT_PAIRS = ("kid", "fid")


class Validation:
    """Translates test pictures with the networks as they are, in every direction, and grades them.

    Networks are in eval mode meanwhile and nothing is drawn from the global random generators: a training that is
    watched is, bit for bit, the one that is not.
    """

    def __init__(self, recipe: Recipe, family: Family, data: Data, device: torch.device, norm_mode: NormMode) -> None:
        """Raises UsageError if there are no test pictures, or a metric does not exist or needs pairs that are not
        there; DeviceUnavailable where a metric needs weights that are not here."""
        if not data.has_test:
            raise UsageError(
                f"train: evaluate_every={recipe.evaluate_every} needs test pictures, and {recipe.data} has none: "
                "add testA/ and testB/ or test/, or set evaluate_every=0"
            )
        usual = _WITHOUT_WEIGHTS if data.paired else _WITHOUT_PAIRS
        self.metrics = choose(recipe.evaluate_metrics or usual, paired=data.paired)
        self._family, self._norm_mode, self._paired, self._device = family, norm_mode, data.paired, device
        self._a, self._b = (_some(side, recipe.evaluate_pictures) for side in (data.test_a, data.test_b))
        self._grader = Grader(
            self.metrics,
            device=device,
            inception=recipe.inception,
            lpips=recipe.lpips,
            cache=FeatureCache(default_cache_file()) if set(self.metrics) & set(_WITHOUT_PAIRS) else None,
        )

    def grade(self, nets: nn.ModuleDict) -> dict[str, float]:
        """`test_a2b_kid` and so on, by direction and metric. The networks return into the modes they were in."""
        values: dict[str, float] = {}
        modes = {name: net.training for name, net in nets.items()}
        nets.eval()
        with torch.no_grad(), batch_norm_as(self._norm_mode):
            for direction, name in self._family.generators.items():
                given, wanted = (self._a, self._b) if direction == "a2b" else (self._b, self._a)
                translate = _Translate(self._family, nets[name], self._device)
                grades = evaluate(translate, given, wanted, self._grader, paired=self._paired, keep=False)
                values |= {f"test_{direction}_{metric}": value for metric, value in grades.values().items()}
        for name, training in modes.items():
            nets[name].train(training)
        return values

    def score(self, step: int, values: dict[str, float]) -> Score:
        """By which checkpoints are compared: the first metric, averaged over directions."""
        metric = self.metrics[0]
        value = fmean(values[f"test_{direction}_{metric}"] for direction in self._family.generators)
        return Score(step, metric, value, METRICS[metric].lower_is_better)


@dataclasses.dataclass(frozen=True)
class _Translate:
    family: Family
    net: nn.Module
    device: torch.device

    def __call__(self, pictures: list[Picture]) -> list[Picture]:
        made: list[Picture] = []
        for picture in pictures:  # one by one, in the memory that one picture needs
            x = to_float(torch.from_numpy(np.ascontiguousarray(picture))[None].to(self.device))
            made += list(to_pictures(self.family.image(self.net, x)))
        return made


def _some(side: Side, count: int) -> Side:
    """At most `count` pictures; 0: all. Always as 8 bits, as their translations are."""
    preparation: Any = dataclasses.replace(side.preparation, bits=8)
    return make_side(side.sources, side.channels, preparation, count)
