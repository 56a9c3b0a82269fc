"""The discriminators of pix2pix's and CycleGAN's authors: `model.N`, or for single pixels `net.N`, numbered as ours."""

from __future__ import annotations

import re

from ..foreign import Tensors
from ..layout import Network, rename, untracked

CODE_BASE = "pytorch-CycleGAN-and-pix2pix"
NAMES = {"D": "d_b", "netD": "d_b", "D_A": "d_b", "netD_A": "d_b", "D_B": "d_a", "netD_B": "d_a"}  # D_A judges B


def recognise(tensors: Tensors) -> Network | None:
    root = "net" if "net.0.weight" in tensors else "model"
    places = {int(m[1]): t for key, t in tensors.items() if (m := re.fullmatch(rf"{root}\.(\d+)\.weight", key))}
    convs = [place for place, tensor in sorted(places.items()) if tensor.dim() == 4]
    pixels = root == "net"
    regular = [0, 2, *range(5, 5 + 3 * (len(convs) - 2), 3)]
    if len(convs) < 3 or convs != regular or places[convs[-1]].shape[0] != 1:
        return None
    if places[0].shape[2:] != ((1, 1) if pixels else (4, 4)):
        return None
    batch = f"{root}.3.weight" in tensors
    norms = [place + 1 for place in convs[1:-1]] if batch else []
    names = {f"{root}.{place}": f"layers.{place}" for place in (*convs, *norms)}
    config = {
        "ndf": places[0].shape[0],
        "d_layers": 0 if pixels else len(convs) - 2,
        "norm": "batch" if batch else "instance",
    }
    return Network(("cyclegan", "pix2pix"), rename(tensors, names), config, dropped=untracked(tensors, names))
