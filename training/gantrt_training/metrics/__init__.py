"""How good translated pictures are. All metrics look at uint8 pictures, as a user would see them.

Between pairs      l1, psnr, ssim, lpips    the translation against the picture that was wanted
Between sets       fid, kid                 all translations against all pictures of the wanted domain
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gantrt.errors import UsageError


@dataclass(frozen=True)
class Metric:
    paired: bool  # needs the picture that was wanted, not only its domain
    lower_is_better: bool
    meaning: str
    network: Literal["inception", "lpips"] | None = None  # whose weights it needs


METRICS = {
    "fid": Metric(False, True, "Fréchet Inception Distance (Heusel et al. 2017)", "inception"),
    "kid": Metric(False, True, "Kernel Inception Distance x 100 (Bińkowski et al. 2018)", "inception"),
    "lpips": Metric(True, True, "LPIPS 0.1, AlexNet (Zhang et al. 2018), mean over pictures", "lpips"),
    "psnr": Metric(True, False, "peak signal-to-noise ratio in dB, mean over pictures"),
    "ssim": Metric(True, False, "structural similarity (Wang et al. 2004), mean over channels and pictures"),
    "l1": Metric(True, True, "mean absolute difference, black to white = 1"),
}


def choose(asked: Sequence[str] | None, *, paired: bool) -> tuple[str, ...]:
    """The metrics asked for, each once; None: all that the data allow.

    Raises UsageError for one that does not exist, and for one that needs pairs where there are none.
    """
    if asked is None:
        return tuple(name for name, metric in METRICS.items() if paired or not metric.paired)
    unknown = [name for name in asked if name not in METRICS]
    if unknown or not asked:
        what = f"there is no metric {unknown[0]!r}" if unknown else "no metric is asked for"
        raise UsageError(f"evaluate: {what}; there are {', '.join(METRICS)}")
    impossible = [name for name in asked if METRICS[name].paired and not paired]
    if impossible:
        possible = ", ".join(name for name, metric in METRICS.items() if not metric.paired)
        raise UsageError(
            f"evaluate: {', '.join(impossible)} compares a translation with the picture wanted, and these pictures are "
            f"not pairs; use {possible}, or --paired if partners share a name"
        )
    return tuple(dict.fromkeys(asked))
