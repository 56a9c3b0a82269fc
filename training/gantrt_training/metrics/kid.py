"""The kernel distance of two sets of features: unbiased, so that few pictures make it uncertain but not too large."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
from gantrt.errors import UsageError
from numpy.typing import NDArray

from .fid import Features


@dataclass(frozen=True)
class KidProtocol:
    """Which parts of the two sets are compared; the distance is the mean over them.

    blocks   both sets are shuffled and cut into blocks of at most `size`, each picture used once. The spread is the
             standard error of the mean. With 10 it is what the authors of U-GAT-IT published as their code.
    subsets  `count` times, `size` pictures of each set at random (Bińkowski et al. 2018 draw 100 of 1000). The spread
             is the standard deviation between subsets.
    """

    size: int = 10
    count: int | None = None  # of subsets; None: blocks
    seed: int = 0

    def __str__(self) -> str:
        if self.count is None:
            return f"blocks of at most {self.size}, each picture once, ± standard error; seed {self.seed}"
        return f"{self.count} subsets of {self.size}, ± standard deviation; seed {self.seed}"


def parse_protocol(text: str, seed: int = 0) -> KidProtocol:
    """`blocks:SIZE` or `subsets:COUNTxSIZE`. Raises UsageError."""
    match = re.fullmatch(r"blocks:(\d+)|subsets:(\d+)x(\d+)", text)
    sizes = [int(number) for number in match.groups() if number] if match else []
    if not sizes or sizes[-1] < 2 or sizes[0] < 1:
        raise UsageError(f"kid: {text!r} is no protocol; write blocks:10, or subsets:100x1000 (100 subsets of 1000)")
    return KidProtocol(sizes[-1], sizes[0] if len(sizes) == 2 else None, seed)


def kernel_distance(x: Features, y: Features, protocol: KidProtocol | None = None) -> tuple[float, float]:
    """100 times the KID, and 100 times its spread (NaN with a single part): see `KidProtocol`.

    Raises UsageError where a set has fewer pictures than a subset, or fewer than two.
    """
    protocol = protocol or KidProtocol()
    rng = np.random.default_rng(protocol.seed)
    if protocol.count is None:
        distances = np.array([mmd(x[i], y[j]) for i, j in _blocks(len(x), len(y), protocol.size, rng)])
        spread = distances.std(ddof=1) / math.sqrt(len(distances)) if len(distances) > 1 else math.nan
    else:
        if min(len(x), len(y)) < protocol.size:
            raise UsageError(f"kid: subsets of {protocol.size} need as many pictures, got {len(x)} and {len(y)}")
        distances = np.array([_of_subset(x, y, protocol.size, rng) for _ in range(protocol.count)])
        spread = distances.std(ddof=0) if len(distances) > 1 else math.nan
    return 100 * float(distances.mean()), 100 * float(spread)


def mmd(x: Features, y: Features) -> float:
    """The unbiased estimate of the squared maximum mean discrepancy (Gretton et al. 2012, eq. 3) under the kernel
    (x·y / d + 1)³, for features of d dimensions: Bińkowski et al. 2018, section 4, arXiv:1801.01401; in float64."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    m, n = len(x), len(y)
    xx, yy, xy = _kernel(x, x), _kernel(y, y), _kernel(x, y)
    within = (xx.sum() - np.trace(xx)) / (m * (m - 1)) + (yy.sum() - np.trace(yy)) / (n * (n - 1))
    return float(within - 2 * xy.mean())


def _kernel(x: Features, y: Features) -> NDArray[np.float64]:
    return np.asarray((x @ y.T / x.shape[1] + 1.0) ** 3)


def _of_subset(x: Features, y: Features, size: int, rng: np.random.Generator) -> float:
    i, j = (rng.choice(len(side), size, replace=False) for side in (x, y))
    return mmd(x[i], y[j])


def _blocks(m: int, n: int, size: int, rng: np.random.Generator) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """As many blocks of each set as the larger one needs; their sizes differ by one at most."""
    count = math.ceil(max(m, n) / size)
    if min(m, n) < 2 * count:
        raise UsageError(
            f"kid: {m} and {n} pictures cannot be cut into {count} blocks of two or more; "
            "take larger blocks, or as many pictures of each side"
        )
    return list(zip(*(np.array_split(rng.permutation(total), count) for total in (m, n)), strict=True))
