"""The U-Net of pix2pix's authors, built from the innermost level outwards.

Outermost: `model.model.{0 down, 1 inner, 3 up}`; within, `{1 down, 2 norm, 3 inner, 5 up, 6 norm}`; innermost
`{1 down, 3 up, 4 norm}`. Dropout has no parameters.
"""

from __future__ import annotations

from ..foreign import Tensors
from ..layout import Network, Unlike, rename, untracked

CODE_BASE = "pytorch-CycleGAN-and-pix2pix"
NAMES = {"G": "g_ab", "netG": "g_ab", "G_A": "g_ab", "G_B": "g_ab"}  # only pix2pix has a U-Net, and it goes one way


def recognise(tensors: Tensors) -> Network | None:
    first, head = tensors.get("model.model.0.weight"), tensors.get("model.model.3.weight")
    if first is None or head is None or first.dim() != 4 or "model.model.1.model.1.weight" not in tensors:
        return None
    conv, norm, downs = _prefixes(tensors)
    batch = "model.model.1.model.2.weight" in tensors
    if not batch and "model.model.0.bias" not in tensors:
        raise Unlike("it was trained without norms (--norm none), which ours always has")
    if downs < 5:
        raise Unlike(f"it halves {downs} times; ours does at least 5 times")
    names = conv | (norm if batch else {})
    config = {
        "ngf": first.shape[0],
        "downs": downs,
        "size": 2**downs,
        "norm": "batch" if batch else "instance",
    }
    assumed = ("no tensor says whether a U-Net was trained with dropout; the engine is without: one picture of each",)
    return Network(
        ("pix2pix",),
        rename(tensors, names),
        config,
        (first.shape[1], head.shape[1]),
        assumed,
        untracked(tensors, names),
    )


def _prefixes(tensors: Tensors) -> tuple[dict[str, str], dict[str, str], int]:
    """Their layers -> ours: of convolutions, of norms; and how often it halves."""
    conv, norm = {"model.model.0": "first", "model.model.3": "head"}, {}
    level, at = 1, "model.model.1.model"
    while f"{at}.3.model.1.weight" in tensors:
        conv[f"{at}.1"], norm[f"{at}.2"] = f"down.{level - 1}.conv", f"down.{level - 1}.norm.bn"
        level, at = level + 1, f"{at}.3.model"
    conv[f"{at}.1"], conv[f"{at}.3"], norm[f"{at}.4"] = "bottom", "up.0.conv", "up.0.norm.bn"
    for index in range(1, level):  # back outwards
        at = at.removesuffix(".3.model")
        conv[f"{at}.5"], norm[f"{at}.6"] = f"up.{index}.conv", f"up.{index}.norm.bn"
    return conv, norm, level + 1
