"""A training as one HTML page: curves, samples over time, metrics, recipe. The page needs no network and no server."""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..atomic import atomic_path
from ..errors import EngineCorrupt

NAME = "report.html"  # of the page that a training leaves in its RUN folder
POINTS = 1500  # at most, of a curve: more than a screen has pixels for
SHEETS = 40  # at most, of the sample sheets, evenly chosen
SHEET_WIDTH = 1600  # pixels at most
SHEET_BYTES = 60_000  # a PNG of at most so many goes in as it is

_BETTER = {"fid": "lower", "kid": "lower", "lpips": "lower", "l1": "lower", "psnr": "higher", "ssim": "higher"}
_ARROWS = {"lower": "↓", "higher": "↑", "": ""}

Row = dict[str, float]


def write_page(run: Path, path: Path | None = None) -> Path:
    """Write the page of the training in the folder `run` to `path`, or into that folder; where it is.

    Raises EngineCorrupt if there is no training, GantrtError if the page cannot be written.
    """
    path = path or run / NAME
    page = make_page(run)
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")  # of names that are no Unicode
    return path


def make_page(run: Path) -> str:
    """The page of the training in the folder `run`. Raises EngineCorrupt if there is none."""
    recipe, rows = _recipe(run), _log(run / "log.jsonl")
    best = _best(run)
    title = f"{run.resolve().name}: {recipe.get('family', '?')}, preset {recipe.get('preset', '?')}"
    data = {
        "charts": charts(rows),
        "sheets": [{"step": step, "image": _embedded(sheet)} for step, sheet in _sheets(run / "samples")],
        "best": best.get("step"),
    }
    parts = {
        "title": html.escape(title),
        "facts": _facts(recipe, rows, best),
        "metrics": _metrics_table(rows, best),
        "recipe": _recipe_table(recipe),
        "data": json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
    }
    page = files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    head, *rest = page.split("{{")
    return head + "".join(parts[name] + text for name, text in (part.split("}}", 1) for part in rest))


def charts(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """What is drawn: one chart per test metric, the losses by phase, learning rates, speed."""
    names = list(dict.fromkeys(name for row in rows for name in row if name not in ("step", "epoch")))
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_chart_of(name, names), []).append(name)
    order = sorted(groups, key=lambda chart: 0 if "test pictures" in chart else _RANKS.get(chart, 2))
    return [
        {
            "title": chart,
            "smooth": chart.startswith(("losses", "terms")),
            "series": [{"name": _label(name), "points": _points(rows, name)} for name in groups[chart]],
        }
        for chart in order
    ]


_LOSSES = "losses, whole phases"
_RANKS = {_LOSSES: 1, "learning rate": 3, "pictures per second": 4}


def _chart_of(name: str, names: Sequence[str]) -> str:
    if name.startswith("test_"):
        metric = name.rsplit("_", 1)[1]
        better = f", {_BETTER[metric]} is better" if metric in _BETTER else ""
        return f"{metric} on test pictures{better}"
    if name.startswith("lr_"):
        return "learning rate"
    if name == "images_per_s":
        return "pictures per second"
    phase = name.partition("_")[0]
    return _LOSSES if name == f"{phase}_loss" and f"lr_{phase}" in names else f"terms of {phase}"


def _label(name: str) -> str:
    return name.split("_")[1] if name.startswith("test_") else name


def _points(rows: Sequence[Row], name: str) -> list[list[float]]:
    """Step and value; of long curves the mean of neighbours, and where they end."""
    found = [(row["step"], row[name]) for row in rows if name in row]
    size = math.ceil(len(found) / POINTS)
    groups = [found[start : start + size] for start in range(0, len(found), size)] if found else []
    return [[group[-1][0], float(f"{sum(value for _, value in group) / len(group):.6g}")] for group in groups]


def _facts(recipe: Mapping[str, Any], rows: Sequence[Row], best: Mapping[str, Any]) -> str:
    """What one wants to know first."""
    last: Row = {}
    for row in rows:
        last.update(row)
    facts = [("steps", f"{last.get('step', 0):,.0f}"), ("epochs", f"{last.get('epoch', 0):,.0f}")]
    if best:
        facts.append((f"best {best.get('metric')}", f"{best.get('value', 0):.4g} at step {best.get('step', 0):,}"))
    if "images_per_s" in last:
        facts.append(("pictures per second", f"{last['images_per_s']:.3g}"))
    facts += [("seed", str(recipe.get("seed", "?"))), ("data", str(recipe.get("data", "?")))]
    return "".join(f"<div><dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd></div>" for k, v in facts)


def _metrics_table(rows: Sequence[Row], best: Mapping[str, Any]) -> str:
    """Metrics of the best checkpoint and the last one side by side."""
    graded = [row for row in rows if any(name.startswith("test_") for name in row)]
    if not graded:
        return "<p>No test pictures were graded. <code>--set evaluate_every=1000</code> does that while it trains.</p>"
    last = graded[-1]
    liked = next((row for row in graded if row["step"] == best.get("step")), None)
    names = [name for name in last if name.startswith("test_")]
    columns = {f"best by {best.get('metric')}, step {liked['step']:,.0f}": liked} if liked else {}
    if liked is last:
        columns = {f"best by {best.get('metric')}, and last: step {last['step']:,.0f}": last}
    else:
        columns[f"last, step {last['step']:,.0f}"] = last
    body = ""
    for name in names:
        _, direction, metric = [*name.split("_", 2), ""][:3]
        arrow = _ARROWS[_BETTER.get(metric, "")]
        cells = "".join(
            f"<td>{column[name]:.4g}</td>" if name in column else "<td>–</td>" for column in columns.values()
        )
        body += f'<tr><th scope="row">{html.escape(metric)} {arrow} {html.escape(direction)}</th>{cells}</tr>'
    head = "".join(f'<th scope="col">{html.escape(text)}</th>' for text in columns)
    return f'<table><thead><tr><th scope="col">metric</th>{head}</tr></thead><tbody>{body}</tbody></table>'


def _recipe_table(recipe: Mapping[str, Any]) -> str:
    flat = {key: value for key, value in recipe.items() if key not in ("config", "schema")}
    flat |= recipe.get("config", {}) if isinstance(recipe.get("config"), dict) else {}
    return (
        "<table>"
        + "".join(
            f'<tr><th scope="row">{html.escape(key)}</th><td>{html.escape(_text(value))}</td></tr>'
            for key, value in flat.items()
        )
        + "</table>"
    )


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_text, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _recipe(run: Path) -> dict[str, Any]:
    if not (run / "recipe.json").is_file():
        raise EngineCorrupt(f"{run}: holds no training: it has no recipe.json")
    recipe = _read_json(run / "recipe.json")
    if recipe is None:
        raise EngineCorrupt(f"{run / 'recipe.json'}: cannot be read")
    return recipe


def _log(path: Path) -> list[Row]:
    """The numbers in log.jsonl, in order of their steps; a line that a killed process left unfinished is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            raw = json.loads(line)
            row = {name: float(value) for name, value in raw.items() if isinstance(value, (int, float))}
        except (ValueError, AttributeError, OverflowError, RecursionError):
            continue
        if math.isfinite(row.get("step", math.nan)):
            rows.append(row)
    return sorted(rows, key=lambda row: row["step"])


def _best(run: Path) -> dict[str, Any]:
    """What best.json says; nothing if it is not there, or says what cannot be."""
    best = _read_json(run / "checkpoints" / "best.json") or {}
    sound = all(type(best.get(key)) in (int, float) and abs(best[key]) < 1 << 63 for key in ("step", "value"))
    return best if sound and isinstance(best.get("metric"), str) else {}


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _sheets(folder: Path) -> Iterable[tuple[int, Path]]:
    found = sorted((int(path.stem[5:]), path) for path in folder.glob("step_*.png") if path.stem[5:].isdigit())
    count = min(SHEETS, len(found))
    chosen = {round(n * (len(found) - 1) / max(count - 1, 1)) for n in range(count)}
    return [found[n] for n in sorted(chosen)]


def _embedded(sheet: Path) -> str:
    """A data: URL. Large sheets become WebP, at most SHEET_WIDTH wide."""
    content, kind = sheet.read_bytes(), "png"
    if len(content) > SHEET_BYTES:
        import cv2
        import numpy as np

        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        if picture is not None:
            scale = SHEET_WIDTH / picture.shape[1]
            if scale < 1:
                size = (SHEET_WIDTH, max(1, round(picture.shape[0] * scale)))
                picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
            done, coded = cv2.imencode(".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, 82])
            if done:
                content, kind = coded.tobytes(), "webp"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
