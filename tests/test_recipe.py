"""From `key=value` to a typed recipe, and from there to RUN/recipe.json and back."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from gantrt.errors import EngineCorrupt, EngineMismatch, UsageError
from gantrt_training.family import list_families, load_family
from gantrt_training.overrides import apply_overrides
from gantrt_training.recipe import Recipe, make_recipe, show, show_presets


@dataclass(frozen=True)
class Config:
    whole: int = 1
    real: float = 1.0
    switch: bool = False
    word: str = ""
    choice: Literal["bce", "lsgan"] = "bce"
    count: Literal[6, 9] = 9
    maybe: int | None = None
    several: tuple[int, ...] = ()
    pair: tuple[float, str] = (0.0, "")

    def __post_init__(self) -> None:
        if self.whole == 13:
            raise ValueError("whole must not be 13")


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("whole", "-3", -3),
        ("whole", "10_000", 10_000),
        ("real", "2e-4", 2e-4),
        ("real", "3", 3.0),
        ("real", 3, 3.0),
        ("switch", "true", True),
        ("switch", "Off", False),
        ("switch", "1", True),
        ("word", "a=b", "a=b"),
        ("choice", "lsgan", "lsgan"),
        ("count", "6", 6),
        ("maybe", "none", None),
        ("maybe", "4", 4),
        ("several", "1,2, 3", (1, 2, 3)),
        ("several", [1, 2], (1, 2)),
        ("pair", "0.5,x", (0.5, "x")),
    ],
)
def test_text_becomes_the_type_of_its_field(key: str, text: Any, value: Any) -> None:
    got = getattr(apply_overrides(Config(), {key: text}), key)
    assert (got, type(got)) == (value, type(value))


@pytest.mark.parametrize(
    ("key", "text", "wanted"),
    [
        ("whole", "1.5", "a whole number"),
        ("whole", "", "a whole number"),
        ("whole", True, "a whole number"),
        ("real", "nan", "a number"),
        ("real", "inf", "a number"),
        ("switch", "maybe", "true or false"),
        ("choice", "wgan", "one of bce, lsgan"),
        ("count", "7", "one of 6, 9"),
        ("maybe", "x", "a whole number or none"),
        ("several", "1,x", "several with commas between"),
        ("pair", "1", "several"),
    ],
)
def test_a_value_of_another_type_names_key_value_and_type(key: str, text: Any, wanted: str) -> None:
    with pytest.raises(UsageError, match=f"{key}={text}: must be .*{wanted}"):
        apply_overrides(Config(), {key: text})


def test_an_unknown_key_names_the_nearest_and_all() -> None:
    with pytest.raises(UsageError, match=r"no key 'chioce'; did you mean choice.*whole, real"):
        apply_overrides(Config(), {"chioce": "x"})


def test_what_a_dataclass_refuses_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"^whole must not be 13$"):
        apply_overrides(Config(), {"whole": "13"})


@pytest.mark.usefixtures("tiny_families")
def test_a_key_goes_to_the_config_or_else_to_the_recipe() -> None:
    recipe = make_recipe("tiny_paired", "x", "plain", {"width": "8", "steps": "12", "swap": "yes"})
    assert (recipe.config.width, recipe.config.dropout, recipe.steps, recipe.swap) == (8, 0.0, 12, True)
    for bad, match in (("widht", "did you mean width"), ("step", "did you mean steps"), ("data", "no key 'data'")):
        with pytest.raises(UsageError, match=match):
            make_recipe("tiny_paired", "x", "plain", {bad: "1"})
    with pytest.raises(UsageError, match="keep must be at least 1, got 0"):
        make_recipe("tiny_paired", "x", "plain", {"keep": "0"})
    with pytest.raises(UsageError, match="no preset 'p'; there are paper, plain"):
        make_recipe("tiny_paired", "x", "p")
    with pytest.raises(UsageError, match=r"no family 'cycle'; there are .*tiny_paired"):
        make_recipe("cycle", "x")


@pytest.mark.parametrize("family", list_families())
def test_every_preset_of_every_family_survives_the_file(family: str, tmp_path: Path) -> None:
    for preset in load_family(family).presets:
        recipe = make_recipe(family, "data", preset, {"seed": "3", "interpolation": "bilinear"})
        recipe.save(tmp_path / "recipe.json")
        assert Recipe.load(tmp_path / "recipe.json") == recipe
        how = recipe.preparation()
        assert how.load_size >= how.size == recipe.config.size
        assert f"# {family}, preset {preset}" in show(recipe)
    assert f"{family} paper" in show_presets()


@pytest.mark.parametrize("family", list_families())
def test_fast_presets_bring_half_precision_that_a_flag_can_take_back(family: str) -> None:
    assert make_recipe(family, "x").precision == "fp32"
    assert make_recipe(family, "x", "fast").precision == "bf16"
    assert make_recipe(family, "x", "fast", {"precision": "fp32"}).precision == "fp32"
    assert "precision=bf16" in next(line for line in show_presets([family]).splitlines() if f"{family} fast" in line)


@pytest.mark.parametrize("page", ["data", "evaluating", "faq", "moving", "training"])
def test_every_key_that_a_page_sets_exists_and_takes_that_value(page: str) -> None:
    text = (Path(__file__).parent.parent / "docs" / f"{page}.md").read_text()
    settings = {
        match
        for words in re.findall(r"`([^`\n]+)`", text)
        for match in re.findall(r"(?<![-\w])([a-z]\w*)=([\w.-]+)", words)
    }
    settings = {(key, value) for key, value in settings if key != "key" and not value.isupper()}  # accumulate=K
    assert settings
    for key, value in settings:
        assert any(_takes(family, key, value) for family in list_families()), f"{key}={value}"


def _takes(family: str, key: str, value: str) -> bool:
    try:
        make_recipe(family, "x", overrides={key: value})
    except UsageError:
        return False
    return True


def test_show_config_says_what_each_key_means() -> None:
    text = show(make_recipe("cyclegan", "x"))
    assert "log_every = 50" in text
    assert "# mirror at random" in text
    config = text.split("preset paper\n")[1].splitlines()
    assert all("#" in line for line in config), [line for line in config if "#" not in line]


@pytest.mark.usefixtures("tiny_families")
def test_load_size_follows_the_crop(tmp_path: Path) -> None:
    assert make_recipe("pix2pix", "x").preparation().load_size == 286
    assert make_recipe("tiny_paired", "x", overrides={"size": "100"}).preparation().load_size == 125
    assert make_recipe("tiny_unpaired", "x").preparation().load_size == 8


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"schema": 99}, EngineMismatch, "schema 99 is newer"),
        ({"schema": None}, EngineCorrupt, "no recipe"),
        ({"config": {"ngf": 64, "no_such_key": 1}}, EngineMismatch, "another gantrt.*no_such_key"),
        ({"config": {"ngf": "many"}}, EngineMismatch, "ngf=many"),
        ({"config": 7}, EngineCorrupt, "no recipe"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(
    tmp_path: Path, change: dict[str, Any], error: type[Exception], match: str
) -> None:
    path = tmp_path / "recipe.json"
    make_recipe("cyclegan", "x").save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(error, match=match):
        Recipe.load(path)
    path.write_text("{")
    with pytest.raises(EngineCorrupt, match="no recipe"):
        Recipe.load(path)
