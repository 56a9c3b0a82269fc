"""The page of a training: whole in one file, from what lies in the RUN folder."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from gantrt import run_page
from gantrt.cli import main
from gantrt.errors import EngineCorrupt
from gantrt.run_page import charts, make_page, write_page


def make_run(folder: Path, *, best: int | None = 4, sheets: int = 3, side: int = 20, name: str = "cyclegan") -> Path:
    """A RUN folder of a training that was graded at steps 2, 4 and 6."""
    (folder / "samples").mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    recipe = {
        "schema": 1,
        "family": name,
        "preset": "paper",
        "data": "x",
        "seed": 3,
        "config": {"size": 8, "betas": [1]},
    }
    (folder / "recipe.json").write_text(json.dumps(recipe))
    rows: list[dict[str, Any]] = []
    for step in range(1, 7):
        row = {"step": step, "epoch": 0, "images_per_s": 5.0, "lr_g": 2e-4, "lr_d": 2e-4}
        rows.append(row | {"g_adv": 1.0 / step, "g_loss": 2.0 / step, "d_real": 0.5, "d_loss": 0.5})
        if step % 2 == 0:
            rows.append({"step": step, "epoch": 0, "test_a2b_kid": 10.0 - step, "test_b2a_kid": 12.5})
    lines = [json.dumps(row) for row in rows]
    (folder / "log.jsonl").write_text("\n".join([*lines, '{"step": 7, "g_lo']))
    if best is not None:
        score = {"step": best, "metric": "kid", "value": 9.25, "lower_is_better": True}
        (folder / "checkpoints" / "best.json").write_text(json.dumps(score))
    for n in range(sheets):
        noise = np.random.default_rng(n).integers(0, 256, (side, 2 * side, 3), np.uint8)
        cv2.imwrite(str(folder / "samples" / f"step_{n * 2:07d}.png"), noise)
    return folder


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found is not None
    return json.loads(found[1])


class Outline(HTMLParser):
    """Tags with their attributes, and cells of tables."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, text: str) -> None:
        if self.tags and self.tags[-1][0] in ("td", "th"):
            self.cells[-1] += text.strip()


def test_the_page_asks_nothing_of_any_network(tmp_path: Path) -> None:
    page = make_page(make_run(tmp_path / "run"))
    outline = Outline(page)
    links = [value for _, attributes in outline.tags for key, value in attributes.items() if key in ("src", "href")]
    assert not links
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", page)
    assert "{{" not in page
    policy = next(a["content"] for tag, a in outline.tags if tag == "meta" and "content" in a and "http-equiv" in a)
    assert policy.startswith("default-src 'none'")


def test_best_and_last_stand_side_by_side(tmp_path: Path) -> None:
    cells = Outline(make_page(make_run(tmp_path / "run"))).cells
    assert cells[:9] == [
        *("metric", "best by kid, step 4", "last, step 6"),
        *("kid ↓ a2b", "6", "4"),
        *("kid ↓ b2a", "12.5", "12.5"),
    ]
    assert "9.25 at step 4" in make_page(tmp_path / "run")
    both = Outline(make_page(make_run(tmp_path / "both", best=6))).cells
    assert both[:4] == ["metric", "best by kid, and last: step 6", "kid ↓ a2b", "4"]


def test_charts_are_metrics_then_losses_then_the_rest(tmp_path: Path) -> None:
    drawn = data_of(make_page(make_run(tmp_path / "run")))["charts"]
    assert [(chart["title"], [series["name"] for series in chart["series"]]) for chart in drawn] == [
        ("kid on test pictures, lower is better", ["a2b", "b2a"]),
        ("losses, whole phases", ["g_loss", "d_loss"]),
        ("terms of g", ["g_adv"]),
        ("terms of d", ["d_real"]),
        ("learning rate", ["lr_g", "lr_d"]),
        ("pictures per second", ["images_per_s"]),
    ]
    assert drawn[0]["series"][0]["points"] == [[2, 8], [4, 6], [6, 4]]
    assert [chart["smooth"] for chart in drawn] == [False, True, True, True, False, False]


def test_long_curves_are_means_of_neighbours_that_end_where_they_end() -> None:
    rows = [{"step": float(n), "g_adv": float(n % 2)} for n in range(1, 10_001)]
    points = charts(rows)[0]["series"][0]["points"]
    assert 1000 <= len(points) <= run_page.POINTS
    assert points[-1][0] == 10_000
    assert {value for _, value in points} <= {0.5, 0.428571, 0.571429}


def test_sheets_are_spread_over_the_training_and_large_ones_shrunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_page, "SHEETS", 4)
    sheets = data_of(make_page(make_run(tmp_path / "small", sheets=11)))["sheets"]
    assert [sheet["step"] for sheet in sheets] == [0, 6, 14, 20]
    exact = base64.b64decode(sheets[0]["image"].removeprefix("data:image/png;base64,"))
    assert exact == (tmp_path / "small" / "samples" / "step_0000000.png").read_bytes()
    large = data_of(make_page(make_run(tmp_path / "large", sheets=1, side=900)))["sheets"][0]["image"]
    webp = np.frombuffer(base64.b64decode(large.removeprefix("data:image/webp;base64,")), np.uint8)
    assert cv2.imdecode(webp, cv2.IMREAD_COLOR).shape == (800, 1600, 3)


def test_names_cannot_become_markup(tmp_path: Path) -> None:
    hostile = "</script><script>alert(1)</script>"
    run = make_run(tmp_path / "run", name=hostile)
    with (run / "log.jsonl").open("a") as log:
        log.write("\n" + json.dumps({"step": 9, hostile: 1.0}))
    page = make_page(run)
    assert page.count("<script") == 2
    assert any(hostile in series["name"] for chart in data_of(page)["charts"] for series in chart["series"])


def test_a_young_or_plain_run_has_a_page_and_no_run_has_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    young = tmp_path / "young"
    young.mkdir()
    (young / "recipe.json").write_text('{"family": "pix2pix", "preset": "paper"}')
    assert "evaluate_every" in make_page(young)
    (tmp_path / "empty").mkdir()
    with pytest.raises(EngineCorrupt, match=r"no recipe\.json"):
        make_page(tmp_path / "empty")
    assert main(["inspect", str(tmp_path / "empty"), "--html"]) == 3
    assert main(["inspect", str(young / "recipe.json"), "--html"]) == 2
    assert main(["inspect", str(young), "--html", str(tmp_path / "deep" / "page.html")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "deep" / "page.html")
    assert main(["inspect", str(young), "--html"]) == 0
    assert (young / "report.html").read_text() == make_page(young)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_a_browser_draws_every_curve(tmp_path: Path) -> None:
    page = write_page(make_run(tmp_path / "run"))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", page.resolve().as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    shown = Outline(done.stdout)
    assert [tag for tag, _ in shown.tags].count("figure") == 6
    assert sum(tag == "path" for tag, _ in shown.tags) >= 9  # nine series; the losses also as they are
    assert any(tag == "img" and (a.get("src") or "").startswith("data:image/png") for tag, a in shown.tags)
