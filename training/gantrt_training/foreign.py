"""Files that other programs wrote: their tensors by name. No code that a file brings along is run, ever.

Files of tensors are read with torch's own `weights_only` loader. Where whole modules were pickled (DiscoGAN's authors
did so), a second reader takes the tensors out: every class it meets becomes an empty shell, every call is refused but
those that put tensors together.
"""

from __future__ import annotations

import collections
import logging
import pickle
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, TypeGuard

import torch
from gantrt.errors import EngineCorrupt, UnsupportedInput
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

log = logging.getLogger("gantrt")

Tensors = dict[str, Tensor]

_DEEPEST = 32  # modules within modules, dicts within dicts: no honest file nests further
_MOST_PLACES = 100_000  # that are looked at: a few hundred bytes can say that each dict holds the next one twice
_MOST_NAMES = 8  # of one tensor, on average: weights and their average may be the same ones
DAMAGE = (  # what pickle and torch were seen to raise for files with bytes changed or cut off
    *(OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, struct.error),
    *(ArithmeticError, AssertionError, MemoryError),
)


def read_networks(path: Path) -> dict[str, Tensors]:
    """Every group of named tensors in a .pth, .pt, whole-module pickle or .safetensors file, by the names that lead to
    it: {"": {...}} for a bare state_dict, {"genA2B": {...}, ...} for a dict of them.

    The content decides how it is read, not the suffix. Raises UnsupportedInput if there is no file, EngineCorrupt if it
    is damaged, holds no tensors, or would run code.
    """
    if not path.is_file():
        raise UnsupportedInput(f"{path}: {'is no file' if path.exists() else 'does not exist'}")
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise UnsupportedInput(f"{path}: cannot be read ({error.strerror or error})") from error
    if start.startswith(b"PK\x03\x04") or start[:1] == b"\x80":
        content = _read_torch(path)
    elif start[8:] == b"{":
        content = _read_safetensors(path)
    else:
        raise EngineCorrupt(f"{path}: is no checkpoint: neither a file of torch.save nor .safetensors")
    try:
        networks = dict(_groups(content, (), _DEEPEST, iter(range(_MOST_PLACES))))
    except _Endless as error:
        raise EngineCorrupt(f"{path}: is no checkpoint: it nests without end") from error
    if not networks:
        raise EngineCorrupt(f"{path}: holds no tensors")
    _check_sizes(path, networks)
    return networks


def _check_sizes(path: Path, networks: Mapping[str, Tensors]) -> None:
    """A tensor may say that it is its one value a trillion times: memory is given only for what the file holds."""
    held, claimed = path.stat().st_size, 0
    for tensors in networks.values():
        for name, tensor in tensors.items():
            size = tensor.numel() * tensor.element_size()
            claimed += size
            if size > held or claimed > _MOST_NAMES * held:
                raise EngineCorrupt(
                    f"{path}: is damaged: {name} is of shape {tuple(tensor.shape)}, more than the file holds"
                )


def _read_safetensors(path: Path) -> Tensors:
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise EngineCorrupt(f"{path}: is damaged ({error})") from error


def _check_archive(path: Path) -> None:
    """torch.save stores, and does not compress: an archive that would grow when it is read is none of its."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, *DAMAGE):
        return  # torch will say what is wrong with it
    if any(entry.filename.endswith("/constants.pkl") for entry in entries):
        raise EngineCorrupt(f"{path}: is a program (TorchScript), not weights; get it as a state_dict")
    packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    if packed or sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise EngineCorrupt(f"{path}: is an archive that grows when it is read; torch.save makes none like it")


def _read_torch(path: Path) -> Any:
    _check_archive(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old storages, missing sources of classes that we do not want anyway
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            if "nsupported " not in str(error):  # "Unsupported global: ..." is torch's word for code
                raise EngineCorrupt(f"{path}: is damaged, or no checkpoint ({_gist(error)})") from error
        except DAMAGE as error:
            raise EngineCorrupt(f"{path}: is damaged, or no checkpoint ({_gist(error)})") from error
        return _read_pickled_modules(path)


def _read_pickled_modules(path: Path) -> Any:
    try:
        content = torch.load(path, map_location="cpu", weights_only=False, pickle_module=_SHELLS, encoding="latin1")
    except pickle.UnpicklingError as error:
        raise EngineCorrupt(f"{path}: is not read, because it {_gist(error)}; get it as a state_dict") from error
    except DAMAGE as error:
        raise EngineCorrupt(f"{path}: is damaged, or no checkpoint ({_gist(error)})") from error
    log.info("import: %s was pickled with its classes; only its tensors were read, none of its code", path)
    return content


def _gist(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__


def _groups(content: Any, names: tuple[str, ...], depth: int, places: Iterator[int]) -> Iterator[tuple[str, Tensors]]:
    """Raises _Endless where there are more places than `places` counts."""
    if isinstance(content, _Shell):
        content = dict(_state(content, "", depth, places))
    if not isinstance(content, Mapping) or not depth:
        return
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and _is_plain(value)}
    if tensors:
        yield ".".join(names), tensors
    for name, value in content.items():
        _count(places)
        if isinstance(name, str):
            yield from _groups(value, (*names, name), depth - 1, places)


def _is_plain(value: Any) -> TypeGuard[Tensor]:
    """A tensor that has its values in memory, one beside the other: neither sparse nor quantised nor without any."""
    return (
        isinstance(value, Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
    )


class _Endless(Exception):
    """There are more places to look at than an honest file has."""


def _count(places: Iterator[int]) -> None:
    if next(places, None) is None:
        raise _Endless


# Whole modules


class _ShellType(type):
    """Makes classes that can be made without a call (as pickle makes objects) but not be called."""

    def __call__(cls, *_args: Any, **_options: Any) -> NoReturn:
        raise pickle.UnpicklingError(f"would call {cls.__module__}.{cls.__qualname__}")


class _Shell(metaclass=_ShellType):
    """What is left of a foreign object: its attributes."""

    dump_patches = False  # torch asks this of a module whose source is not here

    def __new__(cls, *_args: Any) -> _Shell:
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


class _Parameter:
    """Parameter(data, requires_grad); in files of the first PyTorch a state follows, which is not needed."""

    def __init__(self, data: Any, *_rest: Any) -> None:
        self.data = data

    def __setstate__(self, _state: Any) -> None:
        pass


def _reconstructed(cls: Any, *_rest: Any) -> Any:
    """copyreg._reconstructor, of pickle's protocols 0 and 1."""
    is_shell = isinstance(cls, type) and issubclass(cls, _Shell)
    return cls.__new__(cls) if is_shell else _refused("copyreg._reconstructor")


def _nothing() -> None:
    """In place of torch.nn.backends.thnn._get_thnn_function_backend, to which modules once held on."""


def _refused(name: str) -> NoReturn:
    raise pickle.UnpicklingError(f"would call {name}")


class _Call:
    """A function that a pickle may call, and may not change: to a bare one it could give other defaults."""

    __slots__ = ("_function",)
    _function: Any

    def __init__(self, function: Any) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise pickle.UnpicklingError(f"would change {name} of a function")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("copyreg", "_reconstructor"): _Call(_reconstructed),
    ("builtins", "set"): set,
    ("torch", "Size"): torch.Size,
    ("torch._utils", "_rebuild_tensor"): _Call(torch._utils._rebuild_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Call(torch._utils._rebuild_tensor_v2),
    ("torch._utils", "_rebuild_parameter"): _Parameter,
    ("torch.nn.parameter", "Parameter"): _Parameter,
    ("torch.autograd.variable", "Variable"): _Parameter,
    ("torch.nn.backends.thnn", "_get_thnn_function_backend"): _Call(_nothing),
}


_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class _ShellUnpickler(pickle._Unpickler):
    """Python's own, not C's, which gives memory for four billion objects to a file of a hundred bytes that says so."""

    def find_class(self, module_name: str, name: str) -> Any:
        module_name = _PYTHON_2.get(module_name, module_name)
        known = _ALLOWED.get((module_name, name))
        if known is not None:
            return known
        if module_name == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        return _ShellType(name.rpartition(".")[2], (_Shell,), {"__module__": module_name})


def _load(file: Any, **options: Any) -> Any:
    return _ShellUnpickler(file, **options).load()


_SHELLS = SimpleNamespace(__name__=__name__, Unpickler=_ShellUnpickler, load=_load)


def _state(module: Any, prefix: str, depth: int, places: Iterator[int]) -> Iterator[tuple[str, Tensor]]:
    """The state_dict of a shell that was a torch.nn.Module."""
    _count(places)
    held = vars(module) if isinstance(module, _Shell) and depth else {}
    for kind in ("_parameters", "_buffers"):
        values = held.get(kind)
        for name, value in values.items() if isinstance(values, Mapping) else ():
            tensor = getattr(value, "data", value)
            if _is_plain(tensor):
                yield f"{prefix}{name}", tensor
    children = held.get("_modules")
    for name, child in children.items() if isinstance(children, Mapping) else ():
        yield from _state(child, f"{prefix}{name}.", depth - 1, places)
