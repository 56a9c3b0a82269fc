"""A clock that is set, by hand, by NTP or by summer time, changes no duration, no pace and no patience."""

from __future__ import annotations

import ast
import io
import time
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from gantrt.progress import Progress
from gantrt.serve.access import COOKIE, Access
from gantrt.serve.problems import Problem
from gantrt.video import Frame
from gantrt.video.live import Newest
from gantrt.video.pace import Pacer

ROOT = Path(__file__).resolve().parent.parent
DATES = {  # who may ask what time it is, and why
    "python/gantrt/model_cache.py": "files bear dates",
    "python/gantrt/serve/access.py": "replicas agree on when a session ends; asked once, when the server starts",
}
DAY = 86400.0


@pytest.fixture(params=[-DAY, DAY], ids=["back", "forward"])
def jumping(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock jumps by another day each time it is asked."""
    real, asked = time.time, [0.0]

    def jump() -> float:
        asked[0] += request.param
        return real() + asked[0]

    monkeypatch.setattr(time, "time", jump)


def test_only_dates_are_asked_of_the_clock_on_the_wall() -> None:
    asking = set()
    for path in [*ROOT.glob("python/**/*.py"), *ROOT.glob("training/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("time.time", "datetime.now", "time.time_ns"):
                asking.add(str(path.relative_to(ROOT)))
    assert asking == set(DATES)


@pytest.mark.usefixtures("jumping")
def test_a_session_lasts_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    access = Access("s3cret")
    session = {COOKIE: access.log_in("me", "s3cret")}
    for _ in range(3):
        access.check_token("me", {}, session)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + DAY)
    with pytest.raises(Problem, match="wants a token"):
        access.check_token("me", {}, session)


@pytest.mark.usefixtures("jumping")
def test_progress_shows_true_rates() -> None:
    out = io.StringIO()
    with Progress(4, "frames", stream=out) as progress:
        time.sleep(0.05)
        progress.update(4)
    rate = float(out.getvalue().split("/s")[0].split()[-1])
    assert 0 < rate <= 80
    assert "0:00" in out.getvalue()


@pytest.mark.usefixtures("jumping")
def test_a_clip_is_shown_at_its_own_pace() -> None:
    pacer = Pacer()
    frames = [Frame(np.zeros((1, 1, 3), np.uint8), i, i, Fraction(1, 10)) for i in range(3)]
    assert pacer.wait(frames[0]) == 0
    assert 0.05 < pacer.wait(frames[1]) <= 0.1
    assert 0.15 < pacer.wait(frames[2]) <= 0.2


@pytest.mark.usefixtures("jumping")
def test_a_lost_camera_is_tried_again_as_soon_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gantrt.video.live._FIRST_PAUSE", 0.02)

    class OneFrame:
        """A camera that is lost after each picture."""

        width, height, rate = 1, 1, None

        def __init__(self) -> None:
            self.read_once = False

        def read(self, closing: object) -> object:
            if self.read_once:
                raise OSError("unplugged")
            self.read_once = True
            return lambda: np.zeros((1, 1, 3), np.uint8)

        def close(self) -> None: ...

    begin = time.monotonic()
    with Newest("camera", OneFrame) as source:  # type: ignore[arg-type]
        stamps = [frame.pts for frame, _ in zip(source, range(4), strict=False)]
    assert time.monotonic() - begin < 3
    assert all(0 <= later - sooner < 1500 for sooner, later in pairwise(stamps))
