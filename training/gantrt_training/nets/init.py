"""The first weights of pix2pix and CycleGAN."""

from __future__ import annotations

from torch import nn


def init_normal(net: nn.Module, std: float = 0.02) -> None:
    """Weights from N(0, std), a BatchNorm's from N(1, std), biases 0 (Radford et al. 2016, arXiv:1511.06434)."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(layer.weight, 0.0, std)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, std)
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
