"""The manifest: what a runtime must know about an engine. It travels inside the engine file as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from .errors import EngineCorrupt
from .schemas import ENGINE, refuse_newer

SCHEMA = ENGINE
KEY = "gantrt"  # in an .onnx: metadata_props[KEY]; in a .plan: the network's name
MAX_CHARS = 4096  # TensorRT refuses longer network names

LARGEST_SIDE = 1 << 16  # channels, pixels of a side, pictures at once
_MOST_VALUES = 1 << 31  # all of these together: 8 GiB of float32

Direction = Literal["a2b", "b2a"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
Color = Literal["rgb", "bgr", "gray", "none"]  # none: neither grey nor colours, but channels of its own
NormMode = Literal["instance", "running", "none"]


@dataclass(frozen=True)
class InputSpec:
    """The network's one input: NCHW, float, values in the manifest's range."""

    channels: int = 3
    height: int = 256  # the static size, or the size a dynamic engine prefers
    width: int = 256
    multiple: int = 1  # a dynamic engine takes any height and width divisible by this
    dynamic: bool = False


@dataclass(frozen=True)
class Manifest:
    """Everything an engine says of itself. Unknown keys of a newer minor writer are ignored."""

    family: str = "unknown"
    direction: Direction = "a2b"
    network: str = "generator"
    input: InputSpec = field(default_factory=InputSpec)
    range: tuple[float, float] = (-1.0, 1.0)
    output_channels: int = 0  # of what it makes; 0: as many as it takes
    color: Color = "rgb"
    norm_mode: NormMode = "instance"
    precision: Precision = "fp32"
    batch: int = 1
    plugins: tuple[dict[str, str], ...] = ()  # {"name": ..., "version": ...}
    made_by: dict[str, str] = field(default_factory=dict)  # {"gantrt": ..., "torch": ..., "git": ...}
    source_sha256: str = ""
    parity: dict[str, float] = field(default_factory=dict)  # {"max_abs": ..., "psnr_db": ..., "samples": ...}
    int8: dict[str, str] = field(default_factory=dict)  # {"calibrated_on", "judged_on", "kept_fp"}: pictures, layers
    target: dict[str, str] = field(default_factory=dict)  # plans: {"runtime", "version", "compute_capability"}
    schema: int = SCHEMA

    @property
    def made_channels(self) -> int:
        return self.output_channels or self.input.channels

    def to_json(self) -> str:
        """Compact JSON, at most MAX_CHARS characters, keys in a fixed order."""
        text = json.dumps(dataclasses.asdict(self), separators=(",", ":"), sort_keys=True)
        if len(text) > MAX_CHARS:
            raise ValueError(f"manifest: {len(text)} characters, at most {MAX_CHARS} fit into an engine")
        return text

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Parse what `to_json` wrote; nothing of it is believed before it is looked at.

        Raises EngineCorrupt if it is no manifest, EngineMismatch if a newer gantrt wrote it.
        """
        try:
            raw = json.loads(text)
            schema = _whole(raw["schema"], "schema", 1, 1 << 31)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise EngineCorrupt(f"manifest: not a gantrt manifest ({_short(error)})") from error
        refuse_newer("manifest", schema, SCHEMA)
        try:
            return cls(**{key: _READ[key](value, key) for key, value in raw.items() if key in _READ})._checked()
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise EngineCorrupt(f"manifest: a field has the wrong type or value ({_short(error)})") from error

    def _checked(self) -> Manifest:
        spec = self.input
        values = self.batch * max(spec.channels, self.made_channels) * spec.height * spec.width
        if values > _MOST_VALUES:
            raise ValueError(f"{self.batch} pictures of {spec} are more than fit into memory")
        return self


def in_words(channels: int, made: int, color: str) -> str:
    """What an engine takes and makes: "rgb", "gray → rgb", "7 → 4 channels"."""
    if {channels, made} <= {1, 3}:
        given, wanted = ("gray" if n == 1 else color.replace("gray", "rgb") for n in (channels, made))
        return given if given == wanted else f"{given} → {wanted}"
    return f"{channels} channels" if channels == made else f"{channels} → {made} channels"


# How each field is read: a value of another type, or out of all reason, is a ValueError that names the field.


def _whole(value: Any, name: str, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{name} is no whole number from {least} to {most}")
    return value


def _count(value: Any, name: str) -> int:
    return _whole(value, name, 1, LARGEST_SIDE)


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} is no text")
    value.encode()  # half of a surrogate pair can be neither printed nor written
    return value


def _choice(kind: Any) -> Any:
    def read(value: Any, name: str) -> Any:
        if _text(value, name) not in get_args(kind):
            raise ValueError(f"{name} is none of {', '.join(get_args(kind))}")
        return value

    return read


def _texts(value: Any, name: str) -> dict[str, str]:
    return {_text(key, name): _text(entry, f"{name}.{key}") for key, entry in value.items()}


def _numbers(value: Any, name: str) -> dict[str, float]:
    found = {_text(key, name): float(entry) for key, entry in value.items()}
    if any(isinstance(entry, (bool, str)) for entry in value.values()):
        raise ValueError(f"{name} holds what is no number")
    return found


def _input(raw: Any, name: str) -> InputSpec:
    sizes = {key: _count(raw[key], key) for key in ("channels", "height", "width", "multiple") if key in raw}
    dynamic = raw.get("dynamic", False)
    if not isinstance(dynamic, bool):
        raise ValueError(f"{name}.dynamic is neither true nor false")
    return InputSpec(**sizes, dynamic=dynamic)


def _range(value: Any, name: str) -> tuple[float, float]:
    low, high = (float(end) for end in value if type(end) in (int, float))
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"{name} is not two finite numbers, the smaller first")
    return low, high


def _plugins(value: Any, name: str) -> tuple[dict[str, str], ...]:
    return tuple({key: _text(p[key], f"{name}.{key}") for key in ("name", "version")} for p in value)


def _short(error: Exception) -> str:
    """What an error says, of which a stranger's file may be part."""
    return f"{type(error).__name__}: {str(error)[:160]}" if isinstance(error, KeyError) else str(error)[:160]


_READ: dict[str, Any] = {
    "family": _text,
    "direction": _choice(Direction),
    "network": _text,
    "input": _input,
    "range": _range,
    "output_channels": lambda value, name: _whole(value, name, 0, LARGEST_SIDE),
    "color": _choice(Color),
    "norm_mode": _choice(NormMode),
    "precision": _choice(Precision),
    "batch": _count,
    "plugins": _plugins,
    "made_by": _texts,
    "source_sha256": _text,
    "parity": _numbers,
    "int8": _texts,
    "target": _texts,
    "schema": lambda value, name: value,
}
