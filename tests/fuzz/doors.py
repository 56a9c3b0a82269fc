"""Arrays at the door of the C++ core: numpy's and DLPack's, of any shape, strides, type and device, honest in one thing
only: where an array says that its elements lie, there is memory. Run with a sanitised _core, see `make sanitize`.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from gantrt import _core
from gantrt.errors import DeviceUnavailable

from .choices import Choices

ALLOWED = (ValueError, TypeError, DeviceUnavailable, MemoryError)

_LARGEST = 1 << 18  # bytes of an array
_SIDES = (1, 2, 3, 4, 5, 7, 8, 16, 17, 33, 64, 0, -1, 40, 1 << 15, 1 << 31, 1 << 33, (1 << 63) - 1, -(1 << 63))
_STRIDES = (1, 3, -1, 0, 2, -3, 4, 9, 64, 192, -64, 1 << 40, (1 << 63) - 1, -(1 << 63))
_DTYPES = ("f4", "u1", "f2", ">f4", "f8", "i4", "?", "c8", "V4", "M8[s]", "i1", "u2")
_KINDS = (
    (2, 32),
    (1, 8),
    (2, 16),
    (4, 16),
    (0, 32),
    (2, 64),
    (1, 16),
    (6, 8),
    (5, 64),
    (200, 255),
    (2, 0),
)  # code, bits
_DEVICES = (1, 1, 1, 1, 3, 2, 13, 7, 0, -1)


class _DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
        ("shape", ctypes.c_void_p), ("strides", ctypes.c_void_p), ("byte_offset", ctypes.c_uint64),
    )  # fmt: skip


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _DLTensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


class _Versioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p), ("flags", ctypes.c_uint64), ("tensor", _DLTensor),
    )  # fmt: skip


_DELETED: list[int] = []


@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def _delete(address: int) -> None:
    _DELETED.append(address)


_capsule = ctypes.pythonapi.PyCapsule_New
_capsule.restype = ctypes.py_object
_capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
_NAMES = {False: ctypes.create_string_buffer(b"dltensor"), True: ctypes.create_string_buffer(b"dltensor_versioned")}


class Producer:
    """Anything with __dlpack__: what it says is chosen by the bytes."""

    def __init__(
        self, choices: Choices, shape: list[int], strides: list[int] | None, memory: np.ndarray, offset: int
    ) -> None:
        self._keep = [memory]
        self.versioned = bool(choices.number(0, 1))
        self.device = choices.one_of(_DEVICES)
        code, bits = choices.one_of(_KINDS)
        rank = len(shape) if choices.number(0, 31) else choices.one_of((-1, 0, 5, 1 << 30))
        tensor = _DLTensor(
            memory.ctypes.data if choices.number(0, 31) else None, self.device, choices.one_of((0, 0, 3, -1)), rank,
            code, bits, choices.one_of((1, 1, 1, 1, 0, 4, 65535)), self._array(shape),
            None if strides is None else self._array(strides), offset,
        )  # fmt: skip
        deleter = ctypes.cast(_delete, ctypes.c_void_p) if choices.number(0, 7) else None
        if self.versioned:
            major = choices.one_of((1, 1, 1, 1, 0, 2))
            self.managed = _Versioned(major, choices.number(0, 9), None, deleter, choices.number(0, 7), tensor)
        else:
            self.managed = _Managed(tensor, None, deleter)
        self.wild = choices.one_of((None,) * 12 + ("device", "raises", "text", "twice"))

    def _array(self, values: list[int]) -> int:
        array = (ctypes.c_int64 * max(len(values), 1))(*values)
        self._keep.append(array)
        return ctypes.addressof(array)

    def __dlpack_device__(self) -> Any:
        if self.wild == "device":
            return "cpu"
        return self.device, 0

    def __dlpack__(self, **wishes: Any) -> Any:
        if self.wild == "raises":
            raise RuntimeError("no")
        if self.wild == "text":
            return "a capsule"
        capsule = _capsule(ctypes.addressof(self.managed), ctypes.addressof(_NAMES[self.versioned]), None)
        if self.wild == "twice":
            ctypes.pythonapi.PyCapsule_SetName(ctypes.py_object(capsule), b"used_dltensor")
        return capsule


_capsule.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)


def array(choices: Choices) -> Any:
    """An array, or something that says it is one."""
    rank = choices.one_of((4, 3, 2, 1, 0, 5))
    shape = [choices.one_of(_SIDES[:11]) if choices.number(0, 15) else choices.one_of(_SIDES) for _ in range(rank)]
    shape = [1, *shape[1:]] if rank == 4 and choices.number(0, 3) else shape
    if rank > 2 and choices.number(0, 3):
        shape[-1 if choices.number(0, 1) else -3] = choices.one_of((3, 1))
    dense = [int(np.prod([abs(n) for n in shape[axis + 1 :]], dtype=object)) for axis in range(rank)]
    kind = choices.number(0, 3)
    if kind == 0:
        return _odd(choices)
    strides = [choices.one_of(_STRIDES) if not choices.number(0, 7) else stride for stride in dense]
    item = 4 if kind == 3 else np.dtype(choices.one_of(_DTYPES)).itemsize
    dtype = np.dtype(np.uint8)
    reach = [(extent - 1) * stride for extent, stride in zip(shape, strides, strict=True)]
    low, high = sum(r for r in reach if r < 0), sum(r for r in reach if r > 0)
    hopeless = not all(0 < extent < 1 << 31 for extent in shape)  # what must be refused before anything is read
    if not hopeless and (high - low + 1) * 8 > _LARGEST:
        strides, shape = dense, [1] * rank
        low = high = 0
    if hopeless:
        low, high = 0, 64
    memory = np.full((high - low + 1) * 8 + 16, 63, np.uint8)
    if kind == 1 and not hopeless:
        dtype = np.dtype(choices.one_of(_DTYPES))
        item = dtype.itemsize
        start = -low * item
        view = np.ndarray(shape, dtype, memory, start, [s * item for s in strides])
        view.flags.writeable = bool(choices.number(0, 7))
        return view
    # DLPack counts strides in elements, of at most 8 bytes: the memory is for those
    offset = -low * 8
    producer = Producer(choices, shape, strides if choices.number(0, 3) else None, memory, offset)
    return producer


def _odd(choices: Choices) -> Any:
    odd = choices.number(0, 9)
    things = (
        None, 3, "x", [1.0], b"1234", bytearray(192), memoryview(bytes(12)), np.float32(3), object(), _Cuda(choices),
    )  # fmt: skip
    return things[odd]


class _Cuda:
    """__cuda_array_interface__ with anything in it."""

    def __init__(self, choices: Choices) -> None:
        facts = {"data": (4096, False), "typestr": "<f4", "shape": (1, 3, 4, 4), "strides": None, "version": 3}
        key = choices.one_of(tuple(facts))
        wrong = (
            None,
            (),
            (1,),
            "f4",
            ">f4",
            "<f999999999999",
            (1, 2, 3, 4, 5),
            (-1, 3, 4, 4),
            ("a",) * 4,
            {},
            (1 << 70, False),
        )
        self.__cuda_array_interface__ = facts | {key: choices.one_of(wrong)}
        if not choices.number(0, 7):
            del self.__cuda_array_interface__[key]


def seeds() -> list[bytes]:
    return [bytes(((i * k + k) % 251) * (k % 3 > 0) for k in range(7, 90)) for i in range(1, 40)]


class _Given:
    """The arrays of one call."""

    def __init__(self, choices: Choices) -> None:
        self._choices, self.arrays = choices, list[Any]()

    def maybe(self, shape: tuple[int, ...], dtype: str = "f4") -> Any:
        return self.one(shape, dtype) if self._choices.number(0, 1) else None

    def one(self, shape: tuple[int, ...], dtype: str = "f4") -> Any:
        """Most often an array of this shape and type, now and then any other."""
        choices = self._choices
        how = choices.number(0, 15)
        if how == 15:
            made = array(choices)
        else:
            made = np.full(shape, 63, dtype)
            if how == 14 and made.ndim > 1:  # rows further apart, upside down, and the last axis thinned or mirrored
                wide = np.full((*shape[:-2], 2 * shape[-2], 2 * shape[-1]), 63, dtype)
                made = wide[..., :: choices.one_of((2, -2)), : shape[-1]] if choices.number(0, 1) else made[..., ::-1]
            elif how == 13:
                made = _Lent(made)
        self.arrays.append(made)
        return made


class _Lent:
    """Lends numpy's own capsule, and nothing else of it."""

    def __init__(self, array: np.ndarray) -> None:
        self.__dlpack__, self.__dlpack_device__ = array.__dlpack__, array.__dlpack_device__


def run(data: bytes) -> None:
    choices = Choices(data)
    _DELETED.clear()
    given = _Given(choices)
    try:
        (_norm_act, _frame_to_tensor, _tensor_to_frame)[choices.number(0, 2)](choices, given)
    finally:
        made = [ctypes.addressof(each.managed) for each in given.arrays if isinstance(each, Producer)]
        lent = {address: 2 * made.count(address) for address in made}  # as x and as out
        for address in set(_DELETED):
            assert _DELETED.count(address) <= lent.get(address, 0), "a lease was given back more often than taken"


def _side(choices: Choices) -> int:
    return choices.one_of((4, 1, 2, 3, 5, 7, 8, 17, 33, 40, 96))


def _number(choices: Choices) -> int:
    if choices.number(0, 7):
        return choices.number(0, 3)
    return choices.one_of((-1, 4, 16, 1 << 15, (1 << 31) - 1, -(1 << 31)))


def _real(choices: Choices, usual: float) -> float:
    if choices.number(0, 7):
        return usual
    return choices.one_of((1.0, 1e-5, -1.0, 0.0, 1e300, -1e300, float("nan"), float("inf")))


def _word(choices: Choices, *words: str) -> str:
    return choices.one_of(words) if choices.number(0, 31) else "x"


def _norm_act(choices: Choices, given: _Given) -> None:
    n, c, h, w = choices.number(1, 3), choices.one_of((4, 1, 3, 16, 33, 64)), _side(choices), _side(choices)
    layout, pad, rpad = _word(choices, "nchw", "nhwc"), _number(choices), _number(choices)
    pad = pad if choices.number(0, 3) else 0

    def picture(border: int) -> tuple[int, ...]:
        border = 2 * min(max(border, 0), 9)
        return (n, c, h + border, w + border) if layout == "nchw" else (n, h + border, w + border, c)

    x = given.one(picture(0))
    scale, shift = (given.maybe((c,) if choices.number(0, 1) else (n, c)) for _ in range(2))
    rho, residual = given.maybe((c,)), given.maybe(picture(rpad))
    out = x if not choices.number(0, 3) else given.maybe(picture(pad))
    _core.norm_act(
        x, scale, shift, rho, residual, eps=_real(choices, 1e-5), unbiased=bool(choices.number(0, 1)),
        act=_word(choices, "none", "relu", "leaky_relu"), slope=_real(choices, 0.2), pad=pad,
        rpad=rpad if residual is not None or not choices.number(0, 7) else 0, layout=layout, out=out,
        threads=_number(choices), mode=_word(choices, "auto", "two_kernels"),
    )  # fmt: skip


def _pixels(choices: Choices) -> dict[str, Any]:
    return {
        "color": _word(choices, "rgb", "bgr"), "resize": _word(choices, "auto", "bilinear", "area"),
        "threads": _number(choices), "range": (_real(choices, -1.0), _real(choices, 1.0)),
    }  # fmt: skip


def _frame(choices: Choices) -> tuple[int, ...]:
    return (_side(choices), _side(choices), *choices.one_of(((3,), (1,), ())))


def _frame_to_tensor(choices: Choices, given: _Given) -> None:
    frame, (high, wide) = given.one(_frame(choices), "u1"), (_side(choices), _side(choices))
    channels = choices.one_of((3, 1))
    if choices.number(0, 1):
        how: dict[str, Any] = {"out": given.one((1, channels, high, wide)[choices.number(0, 1) :])}
    else:
        how = {"size": (high, wide) if choices.number(0, 7) else (choices.one_of(_SIDES), wide), "channels": channels}
    _core.frame_to_tensor(frame, pad=_number(choices) if choices.number(0, 1) else 0, **how, **_pixels(choices))


def _tensor_to_frame(choices: Choices, given: _Given) -> None:
    x = given.one((1, choices.one_of((3, 1)), _side(choices), _side(choices))[choices.number(0, 1) :])
    how: dict[str, Any] = choices.one_of(
        ({}, {"size": (_side(choices), _side(choices))}, {"size": (choices.one_of(_SIDES), 8)})
    )
    if choices.number(0, 1):
        how = {"out": given.one(_frame(choices), "u1")}
    crop = _number(choices) if choices.number(0, 1) else 0
    _core.tensor_to_frame(x, crop=crop, tanh=bool(choices.number(0, 1)), **how, **_pixels(choices))
