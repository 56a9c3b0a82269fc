"""Factors of the base learning rate, as the reference implementations compute them."""

from __future__ import annotations


def linear_to_zero(at: float, start: float, end: float) -> float:
    """1 up to `start`, then a straight line to 0 at `end`."""
    return 1.0 if at < start else max(0.0, end - at) / max(1.0, end - start)


def constant_then_linear(epoch: int, constant: int, epochs: int, zero_last: bool) -> float:
    """The rule of pix2pix and CycleGAN, `epoch` counted from 0.

    Since 2020 the reference implementation steps its schedule before each epoch instead of after, so that the decay
    begins one epoch early and the last epoch learns nothing: `zero_last`. Without it, all epochs learn.
    """
    decayed = epoch + 1 - constant + (1 if zero_last else 0)
    return 1.0 - max(0, decayed) / max(1, epochs - constant + 1)
