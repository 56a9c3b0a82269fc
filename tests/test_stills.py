"""Folders of pictures: decoding and encoding do not keep the network waiting, and one bad picture stops nothing."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gantrt import stills
from gantrt.errors import UnsupportedInput
from gantrt.stills import translated_stills
from gantrt.video.images import Picture, read_picture, write_picture
from gantrt.video.plan import Job

NETWORK, CODEC = 0.03, 0.02  # seconds; one after the other they would keep the network busy for 3 / 7


class Slow:
    """Stands in for a Translator of one stream: negatives, each after NETWORK seconds of a network that sleeps."""

    def __init__(self) -> None:
        self.info = SimpleNamespace(streams=1)
        self.busy, self.begins = 0.0, []
        self._workers = ThreadPoolExecutor(1)

    def submit(self, image: np.ndarray) -> Future[np.ndarray]:
        return self._workers.submit(self._run, image)

    def _run(self, image: np.ndarray) -> np.ndarray:
        begin = time.perf_counter()
        time.sleep(NETWORK)
        self.busy += time.perf_counter() - begin
        return 255 - image


def folder(tmp_path: Path, count: int) -> list[Job]:
    jobs = []
    for i in range(count):
        write_picture(tmp_path / f"{i}.png", Picture(np.full((8, 8, 3), i, np.uint8)))
        jobs.append(Job((tmp_path / f"{i}.png",), tmp_path / "out" / f"{i}.png", still=True))
    return jobs


def test_network_hardly_waits_though_codecs_take_longer_than_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, translator = folder(tmp_path, 25), Slow()

    def slowly(work: Any) -> Any:
        def wrapped(*args: Any, **options: Any) -> Any:
            time.sleep(CODEC)
            return work(*args, **options)

        return wrapped

    monkeypatch.setattr(stills, "read_picture", slowly(read_picture))
    monkeypatch.setattr(stills, "write_picture", slowly(write_picture))
    begin = time.perf_counter()
    assert [job for job, _ in translated_stills(translator, jobs, overwrite=False)] == jobs  # type: ignore[arg-type]
    elapsed = time.perf_counter() - begin - 2 * CODEC  # the first and the last codec have no network to hide behind
    assert translator.busy / elapsed > 0.8  # 0.98 on an idle machine
    assert all(read_picture(job.output).image.max() == 255 - i for i, job in enumerate(jobs))


def test_a_damaged_picture_fails_alone_and_in_its_place(tmp_path: Path) -> None:
    jobs = folder(tmp_path, 9)
    jobs[4].inputs[0].write_bytes(b"\x89PNG\r\n\x1a\n cut off")
    failed = [outcome.exception() for _, outcome in translated_stills(Slow(), jobs, overwrite=False)]  # type: ignore[arg-type]
    assert [i for i, error in enumerate(failed) if error] == [4]
    assert isinstance(failed[4], UnsupportedInput)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"{i}.png" for i in range(9) if i != 4]


def test_leaving_early_ends_what_was_begun_and_begins_nothing_more(tmp_path: Path) -> None:
    jobs, before = folder(tmp_path, 60), threading.active_count()
    outcomes = translated_stills(Slow(), jobs, overwrite=False)  # type: ignore[arg-type]
    next(outcomes)
    outcomes.close()
    made = sorted((tmp_path / "out").iterdir())
    assert 0 < len(made) < 30
    assert all(path.suffix == ".png" and not path.name.startswith(".") for path in made)
    assert threading.active_count() <= before + 1  # the stand-in's own worker


def test_few_pictures_are_in_memory_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, held, most = folder(tmp_path, 40), 0, 0
    lock = threading.Lock()

    def reading(path: Path) -> Picture:
        nonlocal held, most
        with lock:
            held += 1
            most = max(most, held)
        return read_picture(path)

    def writing(*args: Any, **options: Any) -> None:
        nonlocal held
        write_picture(*args, **options)
        with lock:
            held -= 1

    monkeypatch.setattr(stills, "read_picture", reading)
    monkeypatch.setattr(stills, "write_picture", writing)
    assert len(list(translated_stills(Slow(), jobs, overwrite=False))) == 40  # type: ignore[arg-type]
    assert 2 <= most <= 6
