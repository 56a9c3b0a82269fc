"""Export: a trained generator becomes an engine file, and is not released before it has made torch's pictures."""

from __future__ import annotations

import contextlib
import logging
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from gantrt import __version__
from gantrt.atomic import atomic_path
from gantrt.engine_file import norm_act_nodes, write_engine
from gantrt.errors import UsageError
from gantrt.manifest import Direction, InputSpec, Manifest, Precision
from torch import nn

from .calibration import Calibration
from .checkpoint import load_run
from .comparison import Pictures, compare, pictures_of_run, torch_pairs
from .family import Family
from .fidelity import in_int8
from .nets.norm import NormAct, NormMode
from .recipe import Recipe
from .sizes import height_width
from .tracing import Source, graph_of

log = logging.getLogger("gantrt")

_KEPT_CHARACTERS = 1000  # of names in the manifest, which holds 4096 in all

DIRECTIONS: tuple[Direction, ...] = ("a2b", "b2a")


@dataclass(frozen=True)
class Request:
    """What to export, and how. None leaves the choice to the run."""

    direction: Direction | None = None  # None: a2b, or the one there is
    size: tuple[int, int] | None = None  # (height, width); None: the size it was trained with
    batch: int = 1
    precision: Precision = "fp32"
    dynamic: bool = False  # any height and width divisible by the network's multiple
    norm_mode: NormMode | None = None  # what its BatchNorms go by; None: what the family was trained to
    samples: int = 4  # pictures to compare with torch's
    calibration: str | Path | None = None  # int8: a folder of pictures; None: those of the training
    keep_fp: tuple[str, ...] = ()  # int8: convolutions that stay in floating point, or "auto"
    rewrites: bool = True  # the exact ones of rewrites/; without them, to compare


def export(run: str | Path, out: str | Path, request: Request | None = None, *, overwrite: bool = False) -> Manifest:
    """Write the generator of a RUN folder or checkpoint to the engine file `out`; returns its manifest.

    It is compared with torch on the run's test pictures, or on made-up ones where these are gone.
    Raises UsageError for a request that the run cannot meet, BuildFailed if the engine does not make torch's pictures,
    and what `load_run` raises. On an error nothing is written.
    """
    request = request or Request()
    checkpoint = load_run(run)
    direction = _direction(checkpoint.family, checkpoint.nets, request.direction)
    run_folder = checkpoint.path.parent.parent
    recipe = Recipe.load(run_folder / "recipe.json") if (run_folder / "recipe.json").is_file() else None
    seen = recipe.data if recipe and recipe.data and Path(recipe.data).exists() else None
    if request.precision == "int8" and not request.calibration and seen:
        log.info("export: calibrating on the pictures of the training, %s", seen)
        request = replace(request, calibration=seen)
    if checkpoint.description.dropout != "off":
        log.info("export: the engine has no dropout: it makes one picture of each picture")
    source = Source(
        checkpoint.family,
        checkpoint.config,
        checkpoint.nets[checkpoint.family.generators[direction]],
        direction,
        checkpoint.description.norm_mode,
        checkpoint.sha256,
        recipe is not None and recipe.swap,
    )
    pictures = None if request.precision == "int8" else pictures_of_run(recipe, source)
    return export_generator(source, out, request, pictures, overwrite=overwrite)


def export_generator(
    source: Source,
    out: str | Path,
    request: Request | None = None,
    pictures: Pictures | None = None,
    *,
    overwrite: bool = False,
) -> Manifest:
    """`export` of a generator at hand. Afterwards it is in the mode, train or eval, in which it was."""
    request = request or Request()
    manifest = manifest_of(source, request)
    calibration = _calibration(source, request)
    with atomic_path(out, overwrite=overwrite) as temporary:
        model = graph_of(source, manifest, rewrites=request.rewrites)
        pairs = torch_pairs(source, manifest, calibration.draw if calibration else pictures, request.samples)
        if calibration:
            batches = calibration.batches(manifest.input.height, manifest.input.width, manifest.batch)
            model, kept = in_int8(model, batches, pairs, request.keep_fp)
            manifest = replace(manifest, int8=_int8(calibration, kept))
        if norm_act_nodes(model):
            manifest = replace(manifest, plugins=({"name": "gantrt::NormAct", "version": "1"},))
        write_engine(model, temporary, manifest)
        manifest = replace(manifest, parity=compare(source, manifest, temporary, pairs))
        write_engine(model, temporary, manifest)
    return manifest


def manifest_of(source: Source, request: Request) -> Manifest:
    """What the engine file will say of itself, but for what is found out while it is made.

    Raises UsageError for a request that the generator cannot meet.
    """
    return Manifest(
        family=source.family.name,
        direction=source.direction,
        network=source.network,
        input=_input_spec(source, request),
        output_channels=source.made_channels if source.made_channels != source.channels else 0,
        color={1: "gray", 3: "rgb"}.get(source.channels, "none"),  # type: ignore[arg-type]
        norm_mode=_norm_mode(source, request),
        precision=request.precision,
        batch=request.batch,
        made_by=_made_by(),
        source_sha256=source.sha256,
    )


def _direction(family: Family, nets: nn.ModuleDict, asked: Direction | None) -> Direction:
    there = [direction for direction in DIRECTIONS if family.generators.get(direction, "") in nets]
    for direction in there:
        if asked in (None, direction):
            return direction
    raise UsageError(f"export: this {family.name} has no generator {asked}; it has {' and '.join(there) or 'none'}")


def _input_spec(source: Source, request: Request) -> InputSpec:
    config, rule = source.config, source.family.size_rule(source.config)
    height, width = request.size or rule.fixed or height_width(config.size)
    if rule.fixed and (request.dynamic or (height, width) != rule.fixed):
        raise UsageError(
            f"export: this {source.family.name} takes {rule.fixed[0]}x{rule.fixed[1]} only: its fully connected layer "
            "sees every pixel; leave out --size and --dynamic, or train it light"
        )
    if min(height, width) < 1 or height % rule.multiple or width % rule.multiple:
        near = "x".join(str(max(1, round(side / rule.multiple)) * rule.multiple) for side in (height, width))
        raise UsageError(
            f"export: size {height}x{width}: this {source.family.name} takes multiples of {rule.multiple}; try {near}"
        )
    if request.batch < 1:
        raise UsageError(f"export: batch must be at least 1, got {request.batch}")
    return InputSpec(source.channels, height, width, rule.multiple, request.dynamic)


def _norm_mode(source: Source, request: Request) -> Literal["instance", "running", "none"]:
    norms = [module for module in source.generator.modules() if isinstance(module, NormAct)]
    if any(norm.kind == "batch" for norm in norms):
        return request.norm_mode or source.norm_mode
    if request.norm_mode:
        raise UsageError(f"export: this {source.family.name} has no BatchNorm; leave out --norm-mode")
    return "instance" if norms else "none"


def _made_by() -> dict[str, str]:
    """The versions that made it, and the commit if this very file is under git's control."""
    made_by = {"gantrt": __version__, "torch": torch.__version__}
    here = Path(__file__)
    commands = (["ls-files", "--error-unmatch", here.name], ["rev-parse", "--short", "HEAD"])
    with contextlib.suppress(OSError):
        answers = [
            subprocess.run(["git", "-C", str(here.parent), *command], capture_output=True, text=True, check=False)
            for command in commands
        ]
        if all(answer.returncode == 0 for answer in answers):
            made_by["git"] = answers[-1].stdout.strip()
    return made_by


def _calibration(source: Source, request: Request) -> Calibration | None:
    """The pictures int8 goes by; None for all other precisions."""
    if request.precision != "int8":
        if request.calibration or request.keep_fp:
            raise UsageError(f"export: calibration and keep_fp are for int8, not {request.precision}")
        return None
    if not request.calibration:
        raise UsageError("export: int8 goes by real pictures; give --calibration DIR, such as the engine will get")
    return Calibration.of(request.calibration, source.channels, source.direction, swap=source.swap)


def _int8(calibration: Calibration, kept: list[str]) -> dict[str, str]:
    """What the manifest says of it: how many pictures, and which convolutions stayed in floating point."""
    names = ", ".join(kept)
    return {
        "calibrated_on": str(len(calibration.shown)),
        "judged_on": str(len(calibration.held_out)),
        "kept_fp": names if len(names) <= _KEPT_CHARACTERS else f"{len(kept)} convolutions",
    }
