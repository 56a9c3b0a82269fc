"""The manifest: what a runtime must know about an engine. It travels inside the engine file as JSON."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from .errors import EngineCorrupt
from .schemas import ENGINE, refuse_newer

SCHEMA = ENGINE
KEY = "gantrt"  # in an .onnx: metadata_props[KEY]; in a .plan: the network's name
MAX_CHARS = 4096  # TensorRT refuses longer network names

Direction = Literal["a2b", "b2a"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]


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
    color: Literal["rgb", "bgr", "gray", "none"] = "rgb"  # none: neither grey nor colours, but channels of its own
    norm_mode: Literal["instance", "running", "none"] = "instance"
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
        """Parse what `to_json` wrote.

        Raises EngineCorrupt if it is no manifest, EngineMismatch if a newer gantrt wrote it.
        """
        try:
            raw = json.loads(text)
            schema = int(raw["schema"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise EngineCorrupt(f"manifest: not a gantrt manifest ({error})") from error
        refuse_newer("manifest", schema, SCHEMA)
        try:
            if not 0 <= int(raw.get("output_channels", 0)) <= 1 << 16:
                raise ValueError(f"output_channels {raw['output_channels']} is no number of channels")
            return cls(**_known(cls, raw) | {"input": _input(raw), "range": _pair(raw), "plugins": _plugins(raw)})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise EngineCorrupt(f"manifest: a field has the wrong type ({error})") from error


def in_words(channels: int, made: int, color: str) -> str:
    """What an engine takes and makes: "rgb", "gray → rgb", "7 → 4 channels"."""
    if {channels, made} <= {1, 3}:
        given, wanted = ("gray" if n == 1 else color.replace("gray", "rgb") for n in (channels, made))
        return given if given == wanted else f"{given} → {wanted}"
    return f"{channels} channels" if channels == made else f"{channels} → {made} channels"


def _known(cls: type[Any], raw: dict[str, Any]) -> dict[str, Any]:
    names = {f.name for f in dataclasses.fields(cls)}
    return {key: value for key, value in raw.items() if key in names}


def _input(raw: dict[str, Any]) -> InputSpec:
    spec = InputSpec(**_known(InputSpec, raw["input"]))
    sizes = (spec.channels, spec.height, spec.width, spec.multiple)
    if not all(isinstance(size, int) and 0 < size <= 1 << 16 for size in sizes):
        raise ValueError(f"input {raw['input']} is not a size")
    return spec


def _pair(raw: dict[str, Any]) -> tuple[float, float]:
    low, high = raw["range"]
    return float(low), float(high)


def _plugins(raw: dict[str, Any]) -> tuple[dict[str, str], ...]:
    return tuple({"name": str(p["name"]), "version": str(p["version"])} for p in raw["plugins"])
