"""Our own networks' state_dicts, saved without saying what they are."""

from __future__ import annotations

import math
import re
from typing import Any

from torch import Tensor

from ..foreign import Tensors
from ..layout import Network

CODE_BASE = "gantrt"
NAMES = {name: name for name in ("g_ab", "g_ba", "d_a", "d_b", "d_a_global", "d_b_global", "d_a_local", "d_b_local")}


def recognise(tensors: Tensors) -> Network | None:
    keys = set(tensors)
    for needed, read in _NETWORKS:
        if needed <= keys:
            return read(tensors)
    return None


def _resnet(tensors: Tensors) -> Network:
    stem, head = tensors["stem.conv.weight"], tensors["head.weight"]
    config: dict[str, Any] = {
        "ngf": stem.shape[0],
        "n_blocks": _count(tensors, "blocks"),
        "n_downs": _count(tensors, "down"),
        "norm": "batch" if "stem.norm.bn.weight" in tensors else "instance",
    }
    up = tensors["up.0.conv.weight"]
    assumed = []
    if up.shape[0] < up.shape[1]:
        config["upsample"] = "resize"
        assumed = ["no tensor says whether its doublings are nearest or bilinear; nearest is assumed"]
    return Network(("cyclegan",), dict(tensors), config, (stem.shape[1], head.shape[0]), tuple(assumed))


def _unet(tensors: Tensors) -> Network:
    first, head = tensors["first.weight"], tensors["head.weight"]
    downs = _count(tensors, "down") + 2
    config = {
        "ngf": first.shape[0],
        "downs": downs,
        "size": 2**downs,
        "norm": "batch" if "down.0.norm.bn.weight" in tensors else "instance",
        "upsample": _doubling(head),
    }
    return Network(("pix2pix",), dict(tensors), config, (first.shape[1], _made(head)))


def _disco(tensors: Tensors) -> Network:
    first, head = tensors["first.weight"], tensors["head.weight"]
    bottleneck = tensors["narrow.conv.weight"].shape[0] if "narrow.conv.weight" in tensors else 0
    config = {
        "ngf": first.shape[0],
        "bottleneck": bottleneck,
        "unit_range": not bottleneck,
        "size": 4 * 2 ** (_count(tensors, "down") + 1),
        "upsample": _doubling(head),
    }
    preset = "book: tanh" if bottleneck else "paper: a sigmoid"
    assumed = (f"no tensor says what range a DiscoGAN works in; it is taken as in preset {preset}",)
    return Network(("discogan",), dict(tensors), config, (first.shape[1], _made(head)), assumed)


def _doubling(head: Tensor) -> str:
    return "resize" if head.shape[-1] == 3 else "transpose"


def _made(head: Tensor) -> int:
    """Channels that a last layer makes: (in, out, 4, 4) if it is a transposed convolution, else (out, in, 3, 3)."""
    return int(head.shape[0] if head.shape[-1] == 3 else head.shape[1])


def _ugatit(tensors: Tensors) -> Network:
    stem, head = tensors["stem.conv.weight"], tensors["head.weight"]
    ngf, seen = stem.shape[0], tensors["mlp.0.weight"].shape[1]
    config = {"ngf": ngf, "n_blocks": _count(tensors, "decoder"), "light": seen == 4 * ngf}
    side = math.isqrt(seen // (4 * ngf))
    if seen != 4 * ngf and side * side * 4 * ngf == seen:
        config["size"] = 4 * side  # of a rectangle only --size can tell
    return Network(("ugatit",), dict(tensors), config, (stem.shape[1], head.shape[0]))


def _patchgan(tensors: Tensors) -> Network:
    places = sorted(int(key.split(".")[1]) for key, t in tensors.items() if key.startswith("layers.") and t.dim() == 4)
    first = tensors["layers.0.weight"]
    config = {"ndf": first.shape[0], "d_layers": 0 if first.shape[-1] == 1 else len(places) - 2}
    return Network(("cyclegan", "pix2pix"), dict(tensors), config)


def _disco_d(tensors: Tensors) -> Network:
    return Network(("discogan",), dict(tensors), {"ndf": tensors["first.weight"].shape[0]})


def _ugatit_d(tensors: Tensors) -> Network:
    return Network(("ugatit",), dict(tensors), {"ndf": tensors["layers.0.weight_orig"].shape[0]})


_NETWORKS = (
    ({"mlp.0.weight", "mix.weight", "stem.conv.weight", "head.weight"}, _ugatit),
    ({"stem.conv.weight", "blocks.0.conv1.weight", "up.0.conv.weight", "head.weight"}, _resnet),
    ({"first.weight", "bottom.weight", "head.weight"}, _unet),
    ({"first.weight", "up.0.conv.weight", "head.weight"}, _disco),
    ({"first.weight", "convs.0.weight", "norms.0.weight", "head.weight"}, _disco_d),
    ({"layers.0.weight_orig", "gap_fc.weight_orig"}, _ugatit_d),
    ({"layers.0.weight", "layers.2.weight"}, _patchgan),
)


def _count(tensors: Tensors, group: str) -> int:
    return len({m[1] for key in tensors if (m := re.match(rf"{group}\.(\d+)\.", key))})
