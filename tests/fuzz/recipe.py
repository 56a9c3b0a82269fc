"""The folder of a training: recipe.json, log.jsonl and best.json, and what all who read them make of them."""

from __future__ import annotations

import json

from gantrt.errors import GantrtError
from gantrt.run_page import make_page
from gantrt.summary import summary
from gantrt_training.recipe import Recipe, make_recipe, show

from . import each_reads, scratch_file
from .choices import Choices, spoilt

ALLOWED = (GantrtError,)


_LOG = (
    {"step": 2, "epoch": 0, "g_loss": 1.5, "lr_g": 2e-4, "images_per_s": 20.0},
    {"step": 4, "epoch": 1, "g_loss": 1.25, "lr_g": 2e-4, "images_per_s": 21.0, "test_a2b_l1": 0.1, "test_b2a_l1": 0.2},
)


def _sound(family: str) -> str:
    path = scratch_file("sound.json", b"")
    make_recipe(family, "facades").save(path)
    return path.read_text()


def seeds() -> list[bytes]:
    return [
        *(_sound(family).encode() for family in ("cyclegan", "discogan")),
        *(bytes([i % 4, 3, 9 * i, 7 * i, 2 * i, i]) for i in range(24)),
    ]


def run(data: bytes) -> None:
    if data[:1] != b"{":
        choices = Choices(data)
        raw = json.loads(_sound(choices.one_of(("pix2pix", "cyclegan", "discogan", "ugatit"))))
        data = json.dumps(spoilt(raw, choices)).encode()
        rows = [spoilt(row, choices) for row in _LOG]
        best = json.dumps(spoilt({"step": 4, "metric": "l1", "value": 0.1, "lower_is_better": True}, choices))
        run = scratch_file("recipe.json", b"").parent
        (run / "checkpoints").mkdir(exist_ok=True)
        (run / "checkpoints" / "best.json").write_text(best)
        (run / "log.jsonl").write_text("\n".join(map(json.dumps, rows)))
    path = scratch_file("recipe.json", data)
    each_reads(path, (_load, lambda p: summary(p.parent), lambda p: make_page(p.parent), _shown))


def _load(path) -> None:
    recipe = Recipe.load(path)
    assert show(recipe)
    recipe.preparation()


def _shown(path) -> None:
    from gantrt.cli.inspect import _run

    for line in _run(summary(path.parent)):
        assert all(isinstance(text, str) for text in line)
