"""The manifest, as JSON: text as it is, or a sound one with some values exchanged."""

from __future__ import annotations

import dataclasses
import json
import math

from gantrt.cli.inspect import _what_it_does, _where_it_is_from
from gantrt.errors import EngineCorrupt, EngineMismatch
from gantrt.manifest import InputSpec, Manifest, in_words

from .choices import Choices, spoilt

ALLOWED = (EngineCorrupt, EngineMismatch)

_SOUND = Manifest(
    family="cyclegan",
    input=InputSpec(3, 64, 96, multiple=4, dynamic=True),
    plugins=({"name": "gantrt::NormAct", "version": "1"},),
    made_by={"gantrt": "0.1.0", "torch": "2.13.0"},
    parity={"max_abs": 1e-5, "psnr_db": 90.0, "samples": 8},
    int8={"calibrated_on": "64", "judged_on": "16", "kept_fp": ""},
    target={"runtime": "tensorrt", "version": "11.4.0", "compute_capability": "8.9"},
)


def seeds() -> list[bytes]:
    return [_SOUND.to_json().encode(), Manifest().to_json().encode(), *(bytes([i, 3 * i, 7 * i, i]) for i in range(20))]


def run(data: bytes) -> None:
    if data[:1] == b"{":
        text = data.decode("utf-8", "replace")
    else:
        raw = json.loads(_SOUND.to_json())
        text = json.dumps(spoilt(raw, Choices(data)))
    manifest = Manifest.from_json(text)
    check(manifest)


def check(manifest: Manifest) -> None:
    """What all who read a manifest take for granted."""
    spec = manifest.input
    assert all(type(n) is int and 0 < n <= 1 << 16 for n in (spec.channels, spec.height, spec.width, manifest.batch))
    assert all(map(math.isfinite, manifest.range))
    assert manifest.range[0] < manifest.range[1]
    again = json.loads(json.dumps(dataclasses.asdict(manifest), allow_nan=True))
    for line in (*_what_it_does(again), *_where_it_is_from(again)):
        assert all(isinstance(text, str) for text in line)
    assert in_words(spec.channels, manifest.made_channels, manifest.color)
    assert all(isinstance(text, str) for text in (*manifest.target.values(), *manifest.made_by.values()))
