"""Strangers' bytes, a fixed number of them: seeds, inputs that once were too much, and seeds changed at random.

`make fuzz` goes on where this stops, guided by what each input reaches.
"""

from __future__ import annotations

import fuzz
import pytest
from fuzz.mutations import mutations

COUNT = {"checkpoint": 80, "engine": 150, "recipe": 150, "foreign": 400}  # the slow ones; else 2000


@pytest.mark.parametrize("name", fuzz.list_targets())
@pytest.mark.filterwarnings("ignore")
def test_no_bytes_are_too_much(name: str) -> None:
    target = fuzz.load_target(name)
    seeds = target.seeds()
    for data in (*seeds, *fuzz.kept(name), *mutations(seeds, COUNT.get(name, 2000))):
        error = fuzz.fault(target, data)
        assert error is None, f"{type(error).__name__}: {error}; of {data[:200]!r}, {len(data)} bytes"


@pytest.mark.parametrize("name", fuzz.list_targets())
@pytest.mark.filterwarnings("ignore")
def test_some_seeds_are_sound(name: str) -> None:
    """A target that refuses everything would test nothing."""
    target = fuzz.load_target(name)
    sound = 0
    for data in target.seeds():
        try:
            target.run(data)
            sound += 1
        except target.ALLOWED:
            pass
    assert sound
