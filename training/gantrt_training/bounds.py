"""What the numbers of a Config can be, by their names: a network of minus one layer, or of a billion, is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

from .sizes import HeightWidth

_WIDTH, _LONG = 1 << 16, 10**12

# key -> (least, most). Families share these names; a key that is not here may be anything of its type.
BOUNDS: dict[str, tuple[float, float]] = {
    **{key: (1, _WIDTH) for key in ("channels_a", "channels_b", "size", "batch", "ngf", "ndf")},
    **{key: (0, 1024) for key in ("n_blocks",)},
    **{key: (0, 16) for key in ("downs", "n_downs", "d_layers", "n_dis")},
    **{
        key: (0, _LONG) for key in ("epochs", "constant_epochs", "iterations", "curriculum_steps", "max_pictures", "lr")
    },
    **{key: (0, 1) for key in ("dropout", "beta1", "beta2", "rec_rate", "rec_rate_start")},
    "bottleneck": (0, _WIDTH),
    "pool_size": (0, 1 << 24),
    "d_every": (1, _LONG),
    "load_scale": (0, 64),
}


def check_bounds(config: Any) -> None:
    """Raises ValueError, which names the key, its value and what it can be."""
    for field in dataclasses.fields(config):
        least, most = BOUNDS.get(field.name, (None, None))
        value = getattr(config, field.name)
        if least is None or most is None or value is None:
            continue
        sides = value if isinstance(value, HeightWidth) else (value,)
        if not all(least <= side <= most for side in sides):
            raise ValueError(f"{field.name} must be {least:g} to {most:g}, got {value}")
