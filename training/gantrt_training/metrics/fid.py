"""The Fréchet distance of two sets of features, each taken for a Gaussian."""

from __future__ import annotations

import numpy as np
from gantrt.errors import UsageError
from numpy.typing import NDArray

Features = NDArray[np.floating]  # (pictures, dimensions)


def frechet_distance(x: Features, y: Features) -> float:
    """|m_x - m_y|² + tr(C_x + C_y - 2 (C_x C_y)^½): Heusel et al. 2017, eq. 6, arXiv:1706.08500; in float64.

    With C_x = AᵀA and C_y = BᵀB, where A and B are the centred features over √(n - 1), tr (C_x C_y)^½ is the sum of
    the singular values of A Bᵀ: C_x C_y and A Bᵀ B Aᵀ share their eigenvalues. No root of a matrix is taken, so a
    covariance without full rank, which fewer pictures than dimensions always give, is no difficulty.

    Raises UsageError for fewer than two pictures.
    """
    if min(len(x), len(y)) < 2:
        raise UsageError(f"fid: needs two pictures at least, got {len(x)} and {len(y)}")
    a, b = _centred(x), _centred(y)
    trace_of_root = np.linalg.svd(_triangular(a) @ _triangular(b).T, compute_uv=False).sum()
    apart = np.square(x.mean(0, dtype=np.float64) - y.mean(0, dtype=np.float64)).sum()
    return float(apart + np.square(a).sum() + np.square(b).sum() - 2 * trace_of_root)


def _centred(x: Features) -> NDArray[np.float64]:
    """A with AᵀA the sample covariance of `x`."""
    exact = x.astype(np.float64)
    return np.asarray((exact - exact.mean(0)) / np.sqrt(len(x) - 1))


def _triangular(a: NDArray[np.float64]) -> NDArray[np.float64]:
    """A matrix with the same AᵀA and no more rows than columns."""
    return np.asarray(np.linalg.qr(a, mode="r")) if a.shape[0] > a.shape[1] else a
