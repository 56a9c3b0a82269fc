"""The recipe of a training: everything that was asked for, typed from text, written down in RUN/recipe.json."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import io
import json
import operator
import tokenize
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gantrt.atomic import atomic_path
from gantrt.errors import EngineCorrupt, EngineMismatch, UsageError
from gantrt.schemas import RECIPE, refuse_newer

from .compilation import Compile
from .family import Family, list_families, load_family, make_config
from .overrides import apply_overrides, unknown_key
from .pictures import Bits
from .preparation import UNCUT, Interpolation, Preparation, Preprocess
from .sizes import HeightWidth, height_width, make_size

SCHEMA = RECIPE


@dataclass(frozen=True)
class Recipe:
    """A family's config and what surrounds it. All but the first four can be set by `--set key=value`."""

    family: str
    preset: str
    config: Any
    data: str  # the folder of pictures
    seed: int = 0  # of weights, batches and dropout
    steps: int | None = None  # where to stop; none: as many as the config says
    device: str = "auto"  # auto, cpu, cuda or cuda:N
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # of convolutions; weights and losses stay fp32
    channels_last: bool = False  # how pictures and features lie in memory: often faster on a GPU with bf16 or fp16
    compile: Compile = "none"  # torch.compile's mode: default, max-autotune, reduce-overhead (with CUDA graphs)
    cuda_graph: bool = False  # whole steps are replayed as CUDA graphs: much faster on a GPU at small batches
    accumulate: int = 1  # batches whose gradients make one step
    sync_batchnorm: bool = False  # BatchNorm goes by the pictures of all processes
    ema: float = 0.0  # decay of a moving average of the generators, which samples and export then show; 0: none
    workers: int | None = None  # threads that decode ahead; none: 0 on a CPU, up to 8 beside a GPU
    swap: bool = False  # exchange A and B of the data
    max_pictures: int | None = None  # of each side and epoch; 0: all; none: as the config says
    preprocess: Preprocess = "resize_and_crop"  # or scale_width_and_crop, scale_width, crop, none
    interpolation: Interpolation | None = None  # how pictures are resized; none: as the config says, or bicubic
    bits: Bits = 8  # kept of each value of a picture: 8 or 16
    white: int = 65535  # the value of a 16-bit picture that counts as white: 4095 from a 12-bit camera
    clip_grad: float = 0.0  # longest gradient of a phase, by its Euclidean norm; 0: any
    r1: float = 0.0  # weight of R1, a penalty on the judges' gradients at real pictures; 10 is usual
    gp: float = 0.0  # weight of the gradient penalty between real and made pictures; 10 is usual
    on_nan: Literal["stop", "rollback"] = "stop"  # what to do when a loss is not finite: stop or rollback
    max_rollbacks: int = 3  # to the last checkpoint, before it is given up
    max_unreadable: int = 10  # pictures that may be skipped because they cannot be used; one more stops the training
    log_every: int = 50  # steps
    sample_every: int = 500  # steps; 0: never
    samples: int = 6  # test pictures of each side on a sample sheet
    evaluate_every: int = 0  # steps, and at the end: metrics of the test pictures; 0: never
    evaluate_metrics: tuple[str, ...] | None = None  # the first decides which is best; none: l1,psnr,ssim or kid,fid
    evaluate_pictures: int = 0  # test pictures of each side, evenly chosen; 0: all
    inception: str | None = None  # file of weights for fid and kid; none: of the installed package
    lpips: str | None = None  # file of weights for lpips; none: of the installed package
    checkpoint_every: int = 1000  # steps; 0: only at the end
    keep: int = 3  # newest checkpoints; the best one stays besides

    def __post_init__(self) -> None:
        for key, least in _LEAST.items():
            value = getattr(self, key)
            if value is not None and value < least:
                raise ValueError(f"{key} must be at least {least}, got {value}")
        if self.ema >= 1:
            raise ValueError(f"ema must be less than 1, such as 0.999, got {self.ema}")

    def load_family(self) -> Family:
        return load_family(self.family)

    def preparation(self) -> Preparation:
        """What a Config may say with load_scale, flip and interpolation: pictures are used as they are without."""
        config, rule = self.config, self.load_family().size_rule(self.config)
        default: Interpolation = getattr(config, "interpolation", "bicubic")
        if rule.fixed and self.preprocess in UNCUT:
            raise UsageError(
                f"{self.family}: preprocess={self.preprocess} leaves pictures their own sizes, and these networks "
                f"take {rule.fixed[0]}x{rule.fixed[1]} only; cut them (preprocess=resize_and_crop)"
            )
        if self.cuda_graph and self.preprocess in UNCUT:
            raise UsageError(
                f"{self.family}: cuda_graph wants pictures of one size, and preprocess={self.preprocess} leaves them "
                "their own; cut them (preprocess=resize_and_crop), or set cuda_graph=false"
            )
        scale = getattr(config, "load_scale", 1.0)
        return Preparation(
            size=config.size,
            load_size=make_size(*(max(side, round(side * scale)) for side in height_width(config.size))),
            flip=getattr(config, "flip", False),
            interpolation=self.interpolation or default,
            mode=self.preprocess,
            multiple=rule.multiple,
            bits=self.bits,
            white=self.white,
        )

    def pictures_per_epoch(self) -> int:
        """At most so many of each side; 0: all."""
        return int(getattr(self.config, "max_pictures", 0) if self.max_pictures is None else self.max_pictures)

    def with_overrides(self, overrides: Mapping[str, Any], data: str | None = None) -> Recipe:
        """The same, but for these keys, the config's own first, then the recipe's; and for `data`, if given."""
        for_config, rest = _split(self.config, overrides)
        recipe = apply_overrides(self, rest, known=_settable())
        config = apply_overrides(self.config, for_config)
        return dataclasses.replace(recipe, config=config, data=self.data if data is None else data)

    def save(self, path: Path) -> None:
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}, indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> Recipe:
        """Read what `save` wrote. Raises EngineCorrupt if that is not what it is, EngineMismatch if it is too new."""
        try:
            raw = json.loads(path.read_text())
            refuse_newer(path, operator.index(raw.pop("schema")), SCHEMA)
            family, preset = str(raw.pop("family")), str(raw.pop("preset"))
            config, data = dict(raw.pop("config")), str(raw.pop("data"))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise EngineCorrupt(f"{path}: is no recipe of a training ({error})") from error
        if family not in list_families():
            raise EngineMismatch(f"{path}: is of a family {family[:80]!r}, which this gantrt does not have")
        base = cls(family, preset, config_from(load_family(family), config, path), data)
        try:
            return apply_overrides(base, raw, known=_settable())
        except UsageError as error:
            raise EngineMismatch(f"{path}: was made by another gantrt ({error})") from error


_LEAST = {
    "seed": 0,
    "steps": 1,
    "accumulate": 1,
    "ema": 0,
    "workers": 0,
    "max_pictures": 0,
    "white": 1,
    "max_unreadable": 0,
    "clip_grad": 0,
    "r1": 0,
    "gp": 0,
    "max_rollbacks": 1,
    "log_every": 1,
    "sample_every": 0,
    "samples": 1,
    "evaluate_every": 0,
    "evaluate_pictures": 0,
    "checkpoint_every": 0,
    "keep": 1,
}


def make_recipe(
    family: str, data: str | Path, preset: str = "paper", overrides: Mapping[str, Any] | None = None
) -> Recipe:
    """A recipe from what a user says.

    Raises UsageError for an unknown family, preset or key and for a value that does not fit.
    """
    loaded = load_family(family)
    config = make_config(loaded, preset, {})
    around = loaded.surroundings.get(preset, {})
    return Recipe(family, preset, config, str(data)).with_overrides({**around, **(overrides or {})})


def config_from(family: Family, values: Mapping[str, Any], where: Path) -> Any:
    """A family's Config from its JSON. Raises EngineMismatch if this gantrt does not know one of its keys or values."""
    try:
        return apply_overrides(family.Config(), values)
    except UsageError as error:
        raise EngineMismatch(f"{where}: was made by another gantrt ({error})") from error


def show(recipe: Recipe) -> str:
    """The recipe as a table, one `key = value  # meaning` a line."""
    rows = [(f.name, getattr(recipe, f.name), _meanings(Recipe)) for f in dataclasses.fields(recipe)]
    rows = [row for row in rows if row[0] != "config"]
    config_rows = [
        (f.name, getattr(recipe.config, f.name), _meanings(recipe.config.__class__))
        for f in dataclasses.fields(recipe.config)
    ]
    return "\n".join([*_table(rows), "", f"# {recipe.family}, preset {recipe.preset}", *_table(config_rows)])


def show_presets(families: Sequence[str] | None = None) -> str:
    """The presets of these families (None: all), one `family preset: key=value …` a line."""
    lines = []
    for name in families or list_families():
        family = load_family(name)
        for preset, values in family.presets.items():
            keys = {**values, **family.surroundings.get(preset, {})}
            changed = " ".join(f"{key}={_text(value)}" for key, value in keys.items())
            lines.append(f"{name} {preset}" + (f": {changed}" if changed else ""))
    return "\n".join(lines)


def _table(rows: list[tuple[str, Any, dict[str, str]]]) -> list[str]:
    left = [f"{name} = {_text(value)}" for name, value, _ in rows]
    width = max(map(len, left))
    meanings = [meaning.get(name, "") for name, _, meaning in rows]
    return [f"{text:<{width}}  # {meaning}" if meaning else text for text, meaning in zip(left, meanings, strict=True)]


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)) and not isinstance(value, HeightWidth):
        return ",".join(_text(item) for item in value)
    return str(value).lower() if value is None or isinstance(value, bool) else f"{value}"


@functools.lru_cache
def _meanings(config: Any) -> dict[str, str]:
    """Field name → the comment behind it in the source: there is one place to say what a key means."""
    try:
        source = inspect.getsource(config)
    except OSError:
        return {}
    names = {field.name for field in dataclasses.fields(config)}
    found: dict[str, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        name = token.line.split(":")[0].strip()
        if token.type == tokenize.COMMENT and name in names:
            found[name] = token.string.lstrip("# ")
    return found


def _split(config: Any, overrides: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    own = {field.name for field in dataclasses.fields(config)}
    unknown = next((key for key in overrides if key not in own and key not in _settable()), None)
    if unknown is not None:
        raise UsageError(unknown_key(unknown, (*sorted(own), *_settable())))
    return {k: v for k, v in overrides.items() if k in own}, {k: v for k, v in overrides.items() if k not in own}


def _settable() -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(Recipe))[4:]
