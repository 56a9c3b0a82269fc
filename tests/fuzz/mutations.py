"""Inputs for a run without a fuzzer: the seeds, changed at random, the same every time."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Sequence

_WORDS = (
    b"\0",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\0\0\0\x80",
    b"\xff" * 8,
    b"-1",
    b"0",
    b"9" * 20,
    b"NaN",
    b'"',
    b"{",
    b"[",
    b"\n",
)


def mutations(seeds: Sequence[bytes], count: int, seed: int = 0) -> Iterator[bytes]:
    chance = random.Random(seed)
    for _ in range(count):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.choice((1, 1, 2, 4, 8))):
            _change(data, seeds, chance)
        yield bytes(data)


def _change(data: bytearray, seeds: Sequence[bytes], chance: random.Random) -> None:
    at = chance.randrange(len(data) + 1)
    end = min(len(data), at + chance.choice((1, 2, 4, 16, 256)))
    what = chance.randrange(7)
    if what == 0:
        del data[at:end]
    elif what == 1:
        data[at:at] = data[at:end]
    elif what == 2:
        data[at:end] = chance.choice(_WORDS)
    elif what == 3:
        data[at : at + 4] = struct.pack(
            chance.choice(("<I", ">I")), chance.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, len(data)))
        )
    elif what == 4:
        other = chance.choice(seeds)
        data[at:end] = other[at : at + chance.choice((1, 16, 256))]
    elif what == 5:
        del data[at:]
    elif at < len(data):
        data[at] ^= 1 << chance.randrange(8)
