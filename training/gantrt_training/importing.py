"""Import: a checkpoint of another code-base becomes a RUN that `gantrt export` takes."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from gantrt.errors import EngineCorrupt, EngineMismatch, GantrtError, UnsupportedInput, UsageError
from torch import nn

from . import checkpoint
from .family import Family, load_family
from .foreign import Tensors, read_networks
from .layout import Layout, Network, Unlike, list_layouts
from .nets.norm import NormAct, NormMode
from .overrides import apply_overrides
from .recipe import Recipe
from .sizes import HeightWidth, make_size

log = logging.getLogger("gantrt")

_WRAPPERS = {"module", "_orig_mod"}  # DataParallel's and torch.compile's
_NO_GENERATOR = "is a discriminator; pictures are translated by a generator: import its file, or both"


@dataclass(frozen=True)
class Found:
    """A recognised network: what it is called there, and here."""

    theirs: str
    ours: str
    code_base: str
    network: Network


@dataclass(frozen=True)
class Request:
    """What the tensors do not say, or are to be overruled in."""

    family: str | None = None
    network: str | None = None  # of a file that holds several: only this; of a file that holds one: what it is called
    size: tuple[int, int] | None = None  # (height, width); None: what the layout says, or the family's own
    norm_mode: NormMode | None = None  # None: what the family trains for


@dataclass(frozen=True)
class Imported:
    """What became of the files."""

    description: checkpoint.Description
    code_base: str
    path: Path  # of the weights
    deduced: dict[str, Any] = field(default_factory=dict)  # keys of the config and what the tensors say of them
    left_out: tuple[str, ...] = ()


def import_checkpoint(
    files: Sequence[str | Path], run: str | Path, request: Request | None = None, *, overwrite: bool = False
) -> Imported:
    """Turn checkpoints, one or those of one training, into the RUN folder `run`.

    Raises UnsupportedInput if there is no file, EngineCorrupt if it is damaged or would run code, EngineMismatch if no
    layout fits, UsageError if the request does not suit what the files hold. On an error nothing is written.
    """
    request, run, paths = request or Request(), Path(run), [Path(file) for file in files]
    target = checkpoint.weights_path(run, 0)
    _enter(run, target, overwrite)
    found, left_out = _find(paths, request)
    generators = _generators(found, request)
    family = load_family(generators[0].network.families[0])
    config, deduced = _config(family, generators, request)
    nets, config, rest = _assembled(family, config, generators, [each for each in found if each not in generators])
    description = checkpoint.describe(family, "paper", config, nets)
    description = replace(
        description,
        norm_mode=_norm_mode(nets, request, description.norm_mode),
        data={"imported": {path.name: checkpoint.sha256(path) for path in paths}},
        made_by=description.made_by | {"imported from": generators[0].code_base},
    )
    checkpoint.save_weights(target, description, nets)
    Recipe(family.name, "paper", config, data="").save(run / "recipe.json")
    return Imported(description, generators[0].code_base, target, deduced, (*left_out, *rest))


# What the files hold


def _find(files: list[Path], request: Request) -> tuple[list[Found], list[str]]:
    """The networks of all files, and the names of those that nobody knows."""
    if request.network and len(files) > 1:
        raise UsageError("import: --network is for a single file; give one file, or leave it out")
    found: list[Found] = []
    left_out: list[str] = []
    for file in files:
        _refuse_our_own(file)
        groups = _asked(file, dict(_prefix_groups(read_networks(file))), request.network)
        here: list[Found] = []
        for name, tensors in groups.items():
            each = _recognised(file, name, tensors, request.network if len(groups) == 1 else None)
            here += [each] if each else []
            left_out += [] if each else [name or file.name]
        if not here:
            raise EngineMismatch(f"{file}: {_why_nothing(groups)}")
        found += here
    return found, left_out


def _refuse_our_own(file: Path) -> None:
    with contextlib.suppress(EngineCorrupt, UnsupportedInput):
        checkpoint.read_description(file)
        raise UsageError(f"import: {file} is a checkpoint of gantrt; `gantrt export` takes it as it is")


def _prefix_groups(groups: Mapping[str, Tensors]) -> Iterator[tuple[str, Tensors]]:
    """The same, without what wraps a network's keys, and apart where one state_dict holds several networks."""
    for name, tensors in groups.items():
        if _layout_of(tensors) or not all("." in key for key in tensors):
            yield name, tensors
            continue
        inner: dict[str, Tensors] = {}
        for key, tensor in tensors.items():
            first, _, rest = key.partition(".")
            inner.setdefault(first, {})[rest] = tensor
        named = {".".join(filter(None, (name, "" if n in _WRAPPERS else n))): group for n, group in inner.items()}
        opened = dict(_prefix_groups(named))
        yield from opened.items() if any(map(_layout_of, opened.values())) else [(name, tensors)]


def _layout_of(tensors: Tensors) -> Layout | None:
    for layout in list_layouts():
        try:
            if layout.recognise(tensors):
                return layout
        except Unlike:
            return layout
    return None


def _asked(file: Path, groups: dict[str, Tensors], network: str | None) -> dict[str, Tensors]:
    """Only the network asked for, where there are several."""
    if network is None or len(groups) == 1:
        return groups
    chosen = {name: tensors for name, tensors in groups.items() if network in (name, *name.split("."))}
    if len(chosen) != 1:
        raise UsageError(f"import: {file} has no network {network!r}; it has {', '.join(groups)}")
    return chosen


def _recognised(file: Path, name: str, tensors: Tensors, asked: str | None) -> Found | None:
    layout = _layout_of(tensors)
    if layout is None:
        return None
    theirs = ".".join(filter(None, (file.stem, name)))
    try:
        network = layout.recognise(tensors)
    except Unlike as error:
        raise EngineMismatch(f"{file}: {name or 'the network'} is of {layout.code_base}, but {error}") from error
    assert network is not None
    if asked and asked not in layout.names:
        raise UsageError(f"import: {asked!r} is no network of {layout.code_base}; its are {', '.join(layout.names)}")
    if network.dropped:
        log.debug("import: %s: left out %d statistics of norms that do not use them", theirs, len(network.dropped))
    ours = layout.names[asked] if asked else _by_name(theirs, layout.names)
    if ours is None:
        ours = next(iter(layout.names.values())) if network.channels else None
        if ours is None:
            return None
        log.info("import: %s does not say which way it translates; it becomes a2b, the code-base's usual way", theirs)
    if (network.channels is not None) != ours.startswith("g_"):
        kind = "generator" if network.channels else "discriminator"
        raise UsageError(f"import: {theirs} is a {kind}, and none is called {asked or theirs} in {layout.code_base}")
    return Found(theirs, ours, layout.code_base, network)


def _by_name(theirs: str, names: Mapping[str, str]) -> str | None:
    for name in sorted(names, key=len, reverse=True):
        if re.search(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", theirs):
            return names[name]
    return None


def _why_nothing(groups: Mapping[str, Tensors]) -> str:
    if any(map(_layout_of, groups.values())):
        return _NO_GENERATOR
    name, tensors = max(groups.items(), key=lambda group: len(group[1]))
    what = f"{len(tensors)} tensors, such as {', '.join(sorted(tensors)[:2])}"
    known = ", ".join(dict.fromkeys(layout.code_base for layout in list_layouts()))
    return f"no network in it is one we know ({name or 'it'} holds {what}); known are those of {known}"


# What becomes of them


def _generators(found: list[Found], request: Request) -> list[Found]:
    generators = [each for each in found if each.network.channels]
    if not generators:
        raise EngineMismatch(f"{found[0].theirs}: {_NO_GENERATOR}")
    families = list(dict.fromkeys(each.network.families[0] for each in generators))
    if len(families) > 1:
        raise UsageError(f"import: the generators are of different families, {' and '.join(families)}; import one")
    if request.family:
        load_family(request.family)
        if request.family != families[0]:
            raise UsageError(
                f"import: {generators[0].theirs} is a generator as {families[0]} has it here, not {request.family}; "
                "leave out --family"
            )
    names = [each.ours for each in found]
    twice = next((each for each in found if names.count(each.ours) > 1), None)
    if twice:
        raise UsageError(
            f"import: several networks would be {twice.ours}, one of them {twice.theirs}; choose one file, or --network"
        )
    return generators


def _config(family: Family, generators: list[Found], request: Request) -> tuple[Any, dict[str, Any]]:
    """The family's Config for these generators, and what of it the tensors said."""
    deduced: dict[str, Any] = {}
    for each in generators:
        a, b = each.network.channels if each.ours == "g_ab" else reversed(each.network.channels)  # type: ignore[arg-type,misc]
        for key, value in {**each.network.config, "channels_a": a, "channels_b": b}.items():
            if deduced.setdefault(key, value) != value:
                raise UsageError(
                    f"import: {generators[0].theirs} and {each.theirs} differ in {key}, {deduced[key]} and {value}; "
                    "import one of them with --network"
                )
        for assumption in each.network.assumed:
            log.info("import: %s", assumption)
    if deduced["channels_a"] != deduced["channels_b"] and hasattr(family.Config(), "lambda_identity"):
        deduced["lambda_identity"] = 0.0
    return _sized(family, apply_overrides(family.Config(), deduced), deduced, request), deduced


def _sized(family: Family, config: Any, deduced: Mapping[str, Any], request: Request) -> Any:
    size = config.size
    if request.size is None:
        if "size" not in deduced:
            log.info("import: no tensor says how large the pictures were; %d is assumed (--size HxW)", size)
        return config
    asked = make_size(*request.size)
    if "size" in deduced and asked != size:
        raise UsageError(
            f"import: --size {HeightWidth(*request.size)}: this {family.name} was made for {HeightWidth(size, size)}; "
            "leave --size out here, and if it can do others, give it to `gantrt export`"
        )
    sized = replace(config, size=asked)
    multiple = family.size_rule(sized).multiple
    if any(side < multiple or side % multiple for side in request.size):
        raise UsageError(
            f"import: --size {HeightWidth(*request.size)}: this {family.name} takes multiples of {multiple}"
        )
    return sized


def _assembled(
    family: Family, config: Any, generators: list[Found], others: list[Found]
) -> tuple[nn.ModuleDict, Any, list[str]]:
    """The networks with their weights, their config, and the names of discriminators that do not fit the generators."""
    mine = [each for each in others if family.name in each.network.families]
    with_others = config
    for each in mine:
        with_others = replace(with_others, **{k: v for k, v in each.network.config.items() if k != "norm"})
    if mine:
        try:
            nets = _filled(family, with_others, [*generators, *mine])
            return nets, with_others, [each.theirs for each in others if each not in mine]
        except (Unlike, UsageError) as error:
            log.debug("import: the discriminators do not fit the generators (%s)", error)
    try:
        return _filled(family, config, generators), config, [each.theirs for each in others]
    except (Unlike, UsageError) as error:
        raise EngineMismatch(f"{generators[0].theirs}: its weights do not fit {family.name} ({error})") from error


def _filled(family: Family, config: Any, found: list[Found]) -> nn.ModuleDict:
    """Those of the family's networks that were found, with the weights in place of memory."""
    with torch.device("meta"):
        everything = family.build(config)
    nets = nn.ModuleDict()
    for each in found:
        if each.ours not in everything:
            raise Unlike(f"{family.name} has no network {each.ours} here")
        net = everything[each.ours]
        net.load_state_dict(_checked(net, each), assign=True)
        nets[each.ours] = net
    return nets.eval().requires_grad_(False)


def _checked(net: nn.Module, found: Found) -> Tensors:
    """The weights as `net` wants them: every key, each of its shape, in float32, finite."""
    weights, wanted = dict(found.network.weights), net.state_dict()
    for key, tensor in wanted.items():
        if key.endswith("num_batches_tracked"):
            weights.setdefault(key, torch.zeros((), dtype=torch.long))  # PyTorch had none before 0.4.1
        if key not in weights:
            raise Unlike(f"{found.theirs} lacks {key}")
        if weights[key].shape != tensor.shape:
            shapes = f"{tuple(weights[key].shape)}, not {tuple(tensor.shape)}"
            raise Unlike(f"in {found.theirs} {key} is of shape {shapes}")
        weights[key] = weights[key].detach().to(tensor.dtype).contiguous()
        if not torch.isfinite(weights[key]).all():
            raise Unlike(f"in {found.theirs} {key} has values that are not finite: its training failed")
    unknown = next((key for key in weights if key not in wanted), None)
    if unknown:
        raise Unlike(f"{found.theirs} has {unknown} besides")
    return weights


def _norm_mode(nets: nn.ModuleDict, request: Request, usual: NormMode) -> NormMode:
    norms = [
        layer.kind
        for name, net in nets.items()
        if name.startswith("g_")
        for layer in net.modules()
        if isinstance(layer, NormAct)
    ]
    if "batch" in norms:
        return request.norm_mode or usual
    if request.norm_mode == "running":
        raise UsageError(
            "import: --norm-mode running: this generator has no BatchNorm; it goes by each picture's own statistics"
        )
    return "instance"


def _enter(run: Path, target: Path, overwrite: bool) -> None:
    """Refuse a RUN in which something lies, unless it is an import that may be replaced."""
    there = [path for path in run.rglob("*") if path.is_file()] if run.is_dir() else []
    if there and not overwrite:
        raise GantrtError(f"{run}: is not empty; choose another folder, or give --overwrite to replace an import")
    if any(path not in (target, run / "recipe.json") for path in there):
        raise GantrtError(f"{run}: holds more than an import; choose another folder")
