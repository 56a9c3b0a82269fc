"""Checkpoints: weights that describe themselves, and beside the newest the state that lets its training go on.

    RUN/checkpoints/step_0001000.safetensors   all networks; its metadata say what they are
    RUN/checkpoints/step_0001000.state.pt      optimisers, pools, random generators: tensors and numbers only
    RUN/checkpoints/best.json                  which weights a metric liked best: they stay

The state is written first, so weights without one are an older checkpoint, never half of a new one, and older ones go
only when the new one is on the disk. Nothing here runs code that a file brings along.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import operator
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from gantrt import __version__
from gantrt.atomic import atomic_path
from gantrt.errors import EngineCorrupt, EngineMismatch, GantrtError, UnsupportedInput, UsageError
from gantrt.schemas import CHECKPOINT, refuse_newer
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from .family import Family, list_families, load_family
from .foreign import DAMAGE
from .nets.norm import NormMode
from .recipe import config_from

SCHEMA = CHECKPOINT
KEY = "gantrt"  # in the metadata of the .safetensors file
FOLDER = "checkpoints"
BEST = "best.json"
_AVERAGED = "averaged."  # in front of the keys of moving averages


@dataclass(frozen=True)
class Description:
    """What a file of weights says of itself."""

    family: str
    preset: str
    config: dict[str, Any]
    networks: tuple[str, ...]  # those in the file; an imported one may hold a single generator
    norm_mode: NormMode  # the statistics its BatchNorms are to use when pictures are translated
    dropout: str = "off"  # when pictures are translated
    step: int = 0  # training steps made
    epoch: int = 0  # epochs completed
    averaged: float = 0.0  # decay of the moving averages beside the generators; 0: none
    data: dict[str, Any] = field(default_factory=dict)  # layout and number of pictures
    made_by: dict[str, str] = field(default_factory=lambda: {"gantrt": __version__, "torch": torch.__version__})
    schema: int = SCHEMA


@dataclass(frozen=True)
class Score:
    """How good the weights of a step are, by one metric."""

    step: int
    metric: str  # "kid", "psnr", ...
    value: float
    lower_is_better: bool = True

    def beats(self, other: Score | None) -> bool:
        """Whether these weights are the better ones. Another metric's score says nothing: then the newer one counts."""
        if not math.isfinite(self.value):
            return False
        if other is None or (other.metric, other.lower_is_better) != (self.metric, self.lower_is_better):
            return True
        return self.value < other.value if self.lower_is_better else self.value > other.value


@dataclass(frozen=True)
class Checkpoint:
    """A trained family, loaded: `nets` are on the CPU, in eval mode, and only those the file holds."""

    family: Family
    config: Any
    nets: nn.ModuleDict
    step: int
    path: Path
    sha256: str
    description: Description


def load_run(path: str | Path) -> Checkpoint:
    """The newest checkpoint of a RUN folder, or the one in a .safetensors file.

    Raises UnsupportedInput if there is none, EngineCorrupt if it is damaged or not ours, EngineMismatch if it was made
    by another gantrt.
    """
    path = Path(path)
    if path.is_dir():
        saved = weights_in(path)
        if not saved:
            raise UnsupportedInput(f"{path}: has no checkpoint; is it the RUN folder of `gantrt train` or `import`?")
        path = saved[-1]
    description = read_description(path)
    family, config = _family_and_config(description, path)
    nets = load_weights(path, description, _build(family, config, path))
    nets.eval().requires_grad_(False)
    return Checkpoint(family, config, nets, description.step, path, sha256(path), description)


def describe(family: Family, preset: str, config: Any, nets: nn.ModuleDict, **rest: Any) -> Description:
    """The description of `nets`; `rest` are step, epoch, data and the like."""
    return Description(family.name, preset, asdict(config), tuple(nets), family.norm_mode(config), **rest)


def save_weights(
    path: Path, description: Description, nets: nn.ModuleDict, averages: nn.ModuleDict | None = None
) -> None:
    """Write `nets`, the moving averages of some of them and what they are to `path`, whole or not at all."""
    found = nets.state_dict()
    if averages is not None:
        found |= averages.state_dict(prefix=_AVERAGED)
    tensors = {name: value.detach().cpu().contiguous() for name, value in found.items()}
    with atomic_path(path) as temporary, _disk(path):
        save_file(tensors, temporary, {KEY: json.dumps(asdict(description)), "format": "pt"})


def read_description(path: Path) -> Description:
    """What the weights in `path` are. Raises as `load_run`."""
    if not path.is_file():
        raise UnsupportedInput(f"{path}: {'is no file' if path.exists() else 'does not exist'}")
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(KEY)
    except (SafetensorError, OSError) as error:
        raise EngineCorrupt(f"{path}: is damaged, or no checkpoint of gantrt ({error})") from error
    if text is None:
        raise EngineCorrupt(f"{path}: does not say what it is; if another program trained it, use `gantrt import`")
    try:
        raw = json.loads(text)
        refuse_newer(path, operator.index(raw["schema"]), SCHEMA)
        names = {f.name for f in fields(Description)}
        description = Description(**{k: v for k, v in raw.items() if k in names} | {"networks": tuple(raw["networks"])})
        sound = _makes_sense(description)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise EngineCorrupt(f"{path}: what it says of itself cannot be read ({error})") from error
    if not sound:
        raise EngineCorrupt(f"{path}: what it says of itself makes no sense")
    return description


def _makes_sense(description: Description) -> bool:
    """Whether each field is of its type; what the values of the config are is for its family to say."""
    texts = (description.family, description.preset, description.dropout, *description.networks)
    numbers = (description.step, description.epoch, description.averaged)
    objects = (description.config, description.data, description.made_by)
    return (
        bool(description.networks)
        and all(isinstance(text, str) for text in texts)
        and all(type(number) in (int, float) and 0 <= number < 1 << 63 for number in numbers)
        and all(isinstance(each, dict) for each in objects)
        and all(isinstance(text, str) for text in description.made_by.values())
        and description.norm_mode in ("instance", "running")
    )


def load_weights(
    path: Path, description: Description, nets: nn.ModuleDict, averages: nn.ModuleDict | None = None
) -> nn.ModuleDict:
    """Those of `nets` that the file holds, with its weights; nets on device "meta" get memory for them.

    averages  gets the moving averages, if the file has them, else the weights they are averages of;
              None: they take the place of the weights, as when pictures are translated
    """
    missing = [name for name in description.networks if name not in nets]
    if missing:
        raise EngineCorrupt(f"{path}: {description.family} has no network {missing[0]!r}")
    kept = nn.ModuleDict({name: net for name, net in nets.items() if name in description.networks})
    try:
        tensors = load_file(path)
        moving = {key.removeprefix(_AVERAGED): tensors.pop(key) for key in list(tensors) if key.startswith(_AVERAGED)}
        shown = tensors | moving if averages is None else tensors
        kept.load_state_dict(_owned(shown, kept), assign=next(kept.parameters()).is_meta)
        if averages is not None:
            averages.load_state_dict({key: (moving or tensors)[key] for key in averages.state_dict()})
    except (SafetensorError, OSError) as error:
        raise EngineCorrupt(f"{path}: is damaged ({error})") from error
    except (RuntimeError, KeyError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise EngineCorrupt(f"{path}: the weights do not fit {description.family} as configured ({reason})") from error
    return kept


def _owned(tensors: Mapping[str, torch.Tensor], nets: nn.ModuleDict) -> dict[str, torch.Tensor]:
    """Copies, of the type `nets` has: what is read from a .safetensors file is the file, as long as it lives."""
    wanted = nets.state_dict()
    return {
        key: tensor.to(wanted[key].dtype, copy=True) if key in wanted else tensor for key, tensor in tensors.items()
    }


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write what a training needs to go on: nested dicts and lists of tensors, numbers and text."""
    with atomic_path(path) as temporary, _disk(path):
        torch.save({"schema": SCHEMA, **state}, temporary)


def load_state(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what `save_state` wrote, onto `device`.

    Raises EngineCorrupt if it is damaged or something else, EngineMismatch if a newer gantrt wrote it.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (*DAMAGE, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EngineCorrupt(
            f"{path}: is damaged, or no state of a training ({reason}); the weights beside it can still be exported"
        ) from error
    if not isinstance(state, dict):
        raise EngineCorrupt(f"{path}: is no state of a training")
    refuse_newer(path, state.pop("schema", SCHEMA), SCHEMA)  # the first ones carry no number
    if "processes" not in state and "pools" in state:  # and know of one process only
        state["processes"] = [{key: state.pop(key) for key in ("pools", "random")}]
    return state


def weights_path(run: Path, step: int) -> Path:
    return run / FOLDER / f"step_{step:07d}.safetensors"


def state_path(weights: Path) -> Path:
    return weights.with_suffix(".state.pt")


def weights_in(run: Path) -> list[Path]:
    """The weights in a RUN folder, oldest first."""
    found = [path for path in (run / FOLDER).glob("step_*.safetensors") if path.stem[5:].isdigit()]
    return sorted(found, key=lambda path: int(path.stem[5:]))


def newest_resumable(run: Path) -> Path | None:
    """The newest weights that have a state beside them."""
    return next((path for path in reversed(weights_in(run)) if state_path(path).is_file()), None)


def best(run: Path) -> Score | None:
    """The best score so far whose weights are still there."""
    try:
        score = Score(**json.loads((run / FOLDER / BEST).read_text()))
        return score if weights_path(run, score.step).is_file() else None
    except (OSError, ValueError, TypeError):
        return None


def mark_best(run: Path, score: Score) -> bool:
    """Remember the weights of `score.step`, which must be saved, if no earlier ones were better; whether they are."""
    if not score.beats(best(run)):
        return False
    with atomic_path(run / FOLDER / BEST) as temporary:
        temporary.write_text(json.dumps(asdict(score)) + "\n")
    return True


def forget_best_after(run: Path, step: int) -> None:
    """Of a training brought back to `step`: the best checkpoint of steps it has yet to make is none."""
    liked = best(run)
    if liked is not None and liked.step > step:
        (run / FOLDER / BEST).unlink(missing_ok=True)


def prune(run: Path, keep: int) -> None:
    """Remove all but the newest `keep` weights, the best and the newest state, and what a killed process left."""
    saved, liked = weights_in(run), best(run)
    for old in saved[:-keep]:
        if liked is None or old != weights_path(run, liked.step):
            old.unlink(missing_ok=True)
    newest = newest_resumable(run)
    for state in (run / FOLDER).glob("step_*.state.pt"):
        if newest is None or state != state_path(newest):
            state.unlink(missing_ok=True)
    for part in (run / FOLDER).glob(".*.part.*"):
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[None]:
    """What the writers raise on a full disk, as one error that names the file."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise GantrtError(
            f"{path}: cannot be written ({reason}); what was saved before is whole, --resume goes on from it"
        ) from error


def _family_and_config(description: Description, path: Path) -> tuple[Family, Any]:
    if description.family not in list_families():
        raise EngineMismatch(f"{path}: was made by a family {description.family!r}, which this gantrt does not have")
    family = load_family(description.family)
    return family, config_from(family, description.config, path)


def _build(family: Family, config: Any, path: Path) -> nn.ModuleDict:
    """The networks without memory: what the config asks for may be more than the file, or this machine, holds."""
    try:
        with torch.device("meta"):
            return family.build(config)
    except UsageError as error:
        raise EngineMismatch(f"{path}: was made by another gantrt ({error})") from error


def sha256(path: Path) -> str:
    """Of the content of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
