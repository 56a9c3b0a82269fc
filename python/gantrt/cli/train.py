"""`gantrt train`: a folder of pictures becomes a trained family."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DeviceUnavailable, UnsupportedInput, UsageError

if TYPE_CHECKING:
    from gantrt_training.recipe import Recipe

HELP = "train pix2pix, cyclegan, discogan or ugatit"
NEEDED = {"torch", "lightning_fabric", "safetensors", "tensorboard"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("family", nargs="?", metavar="FAMILY", help="pix2pix, cyclegan, discogan, ugatit")
    parser.add_argument(
        "--data", metavar="DIR", help="trainA/ trainB/ [testA/ testB/], A|B pairs in train/ [test/], or a list"
    )
    parser.add_argument("-o", "--output", metavar="RUN", help="folder for checkpoints, samples and logs")
    parser.add_argument("--preset", metavar="P", help="where the numbers come from; default: paper")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="see --show-config")
    parser.add_argument("--epochs", metavar="N", help="passes through the data; the schedule follows")
    parser.add_argument("--steps", metavar="N", help="stop after so many steps, whatever the epochs")
    parser.add_argument("--seed", metavar="N", help="of weights, batches and dropout; default: 0")
    parser.add_argument("--device", metavar="D", help="auto, cpu, cuda or cuda:N; default: auto")
    parser.add_argument("--precision", metavar="P", help="fp32, bf16 or fp16; default: fp32")
    parser.add_argument("--workers", metavar="N", help="threads that decode ahead")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in RUN")
    parser.add_argument("--overwrite", action="store_true", help="replace the training that lies in RUN")
    parser.add_argument("--no-progress", action="store_true", help="no progress on stderr")
    parser.add_argument("--list-presets", action="store_true", help="print the presets of FAMILY, or of all, and stop")
    parser.add_argument("--show-config", action="store_true", help="print all keys, values and meanings, and stop")


def run(args: argparse.Namespace) -> int:
    try:
        from gantrt_training import recipe as recipes
        from gantrt_training.devices import is_first_process
        from gantrt_training.trainer import train
    except ModuleNotFoundError as error:
        if error.name not in NEEDED:
            raise
        raise DeviceUnavailable(f'train: {error.name} is not installed; pip install "gantrt[train]"') from error
    if args.list_presets:
        print(recipes.show_presets([args.family] if args.family else None))
        return 0
    recipe = _resumed(args) if args.resume else _new(args)
    if args.show_config:
        print(recipes.show(recipe))
        return 0
    if not recipe.data:
        raise UnsupportedInput("train: no pictures; give --data DIR, a folder with trainA/ and trainB/, or with train/")
    if not args.output:
        raise UsageError("train: no place for the result; give -o RUN")
    path = train(recipe, args.output, resume=args.resume, overwrite=args.overwrite, progress=_progress(args))
    if is_first_process():
        print(path)
    return 0


def _new(args: argparse.Namespace) -> Recipe:
    from gantrt_training.family import list_families
    from gantrt_training.recipe import make_recipe

    if not args.family:
        raise UsageError(f"train: no family; give one of {', '.join(list_families())}")
    return make_recipe(args.family, args.data or "", args.preset or "paper", _overrides(args))


def _resumed(args: argparse.Namespace) -> Recipe:
    """The recipe in RUN, with what the command line changes of it."""
    from gantrt_training.recipe import Recipe

    path = Path(args.output or "") / "recipe.json"
    if not args.output or not path.is_file():
        raise UsageError(f"train: {args.output or 'nothing'} holds no training to resume; give -o RUN")
    recipe = Recipe.load(path)
    for key in ("family", "preset"):
        if getattr(args, key) not in (None, getattr(recipe, key)):
            raise UsageError(
                f"train: {args.output} was trained with {key} {getattr(recipe, key)}, not {getattr(args, key)}"
            )
    return recipe.with_overrides(_overrides(args), data=args.data)


def _overrides(args: argparse.Namespace) -> dict[str, str]:
    """What --set and the flags say, by key; a flag is short for its key."""
    overrides = {}
    for text in args.set:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"train: --set {text}: must be key=value")
        overrides[key.strip()] = value.strip()
    for key in ("epochs", "steps", "seed", "device", "precision", "workers"):
        if getattr(args, key) is not None:
            overrides[key] = getattr(args, key)
    return overrides


def _progress(args: argparse.Namespace) -> bool:
    return not (args.no_progress or args.quiet)
