"""The bench that trains within a time: its schedule fits, and its pictures come back as they were made."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from conftest import ROOT
from gantrt_training.recipe import make_recipe
from tiny_pictures import make_pairs, picture


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    import paper_training

    return paper_training


def test_a_schedule_is_shortened_as_a_whole_and_never_lengthened(bench: ModuleType) -> None:
    pix2pix = make_recipe("pix2pix", "x")
    short = bench.shortened(pix2pix, 400 * 30 + 399, 400)
    assert bench.length(short) == {"epochs": 30, "constant_epochs": 15}
    assert short.load_family().total_steps(short.config, 400) <= 400 * 30 + 399
    assert bench.shortened(pix2pix, 10**9, 400) == pix2pix
    ugatit = make_recipe("ugatit", "x", "fast")
    assert bench.length(bench.shortened(ugatit, 1234, 150)) == {"iterations": 1234}
    assert bench.shortened(ugatit, 10**9, 150) == ugatit


def test_pictures_come_back_from_as_many_zips_as_it_takes(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [picture(n, 24, 24) for n in range(12)]
    monkeypatch.setattr(bench, "PART", 8000)
    names = bench.write_zips(tmp_path, "a2b", pictures)
    assert len(names) == len(list(tmp_path.glob("*.zip"))) > 1
    assert all((tmp_path / name).stat().st_size <= 8000 + 22 for name in names)
    assert all(map(np.array_equal, bench.read_zips(tmp_path, "a2b"), pictures))


def test_a_training_leaves_what_is_graded_elsewhere(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_pairs(tmp_path / "data")
    command = ["paper_training.py", "facades", "--data", str(tmp_path / "data"), "-o", str(tmp_path / "out")]
    command += ["--device", "cpu", "--steps", "3", "--seconds", "60", "--set", "size=32", "ngf=4", "ndf=4"]
    monkeypatch.setattr(sys, "argv", command)
    bench.main()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "log.jsonl",
        "pictures_a2b.zip",
        "sheet.jpg",
        "training.json",
    ]
    about = json.loads((tmp_path / "out" / "training.json").read_text())
    assert (about["step"], about["ended_early"], about["recipe"]["swap"]) == (3, False, True)
    assert about["files"] == {"a2b": ["pictures_a2b.zip"]}
    assert about["preset_length"]["epochs"] == 200
    made = bench.read_zips(tmp_path / "out", "a2b")
    assert [each.shape for each in made] == [(32, 32, 3)] * 2
