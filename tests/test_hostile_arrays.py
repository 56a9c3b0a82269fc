"""Arrays that are not what they say, at the door of the C++ core: refused by name before a byte of them is read."""

from __future__ import annotations

import ctypes
import gc
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fuzz import doors
from gantrt import _core

LENT = np.full(4096, 63, np.uint8)


def producer(**wrong: Any) -> Any:
    """A float32 array of shape (1, 3, 4, 4) by DLPack, but for what is said otherwise."""
    said: dict[str, Any] = {
        "data": LENT.ctypes.data, "device_type": 1, "ndim": 4, "code": 2, "bits": 32, "lanes": 1, "shape": (1, 3, 4, 4),
        "strides": None, "byte_offset": 0, "major": 1, "flags": 0,
    } | wrong  # fmt: skip
    keep = [(ctypes.c_int64 * len(v))(*v) if v is not None else None for v in (said["shape"], said["strides"])]
    shape, strides = (None if array is None else ctypes.addressof(array) for array in keep)
    tensor = doors._DLTensor(
        said["data"], said["device_type"], 0, said["ndim"], said["code"], said["bits"], said["lanes"], shape, strides,
        said["byte_offset"],
    )  # fmt: skip
    deleter = ctypes.cast(doors._delete, ctypes.c_void_p)
    managed = doors._Versioned(said["major"], 0, None, deleter, said["flags"], tensor)
    name = doors._NAMES[True]
    return SimpleNamespace(
        keep=(keep, managed),
        __dlpack_device__=lambda: (said["device_type"], 0),
        __dlpack__=lambda **_: doors._capsule(ctypes.addressof(managed), ctypes.addressof(name), None),
    )


def test_an_honest_producer_is_read_and_gets_its_lease_back() -> None:
    doors._DELETED.clear()
    assert _core.norm_act(producer()).shape == (1, 3, 4, 4)
    gc.collect()
    assert len(doors._DELETED) == 1


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"data": None}, "has no memory behind it"),
        ({"data": None, "byte_offset": 64}, "has no memory behind it"),
        ({"byte_offset": 2}, "is not aligned"),
        ({"shape": None}, "says nothing of its shape"),
        ({"ndim": -1}, "1 to 4 axes"),
        ({"ndim": 0}, "1 to 4 axes"),
        ({"ndim": 1 << 30}, "1 to 4 axes"),
        ({"shape": (1, 3, -4, 4)}, "no shape memory can have"),
        ({"shape": (1, 3, 1 << 33, 1 << 33)}, "no shape memory can have"),
        ({"shape": (1, 3, 0, 4)}, "must not be empty"),
        ({"shape": (1 << 40, 1, 1, 1)}, "too large"),
        ({"strides": (48, 16, 4, 2)}, "must be contiguous"),
        ({"strides": (48, 16, -4, 1)}, "must be contiguous"),
        ({"strides": (0, 0, 0, 0)}, "must be contiguous"),
        ({"strides": (1 << 62, 1 << 62, 1 << 62, 1 << 62)}, "must be contiguous"),
        ({"bits": 64}, "got float64"),
        ({"code": 0}, "got int32"),
        ({"code": 5, "bits": 64}, "must be uint8, float16, bfloat16 or float32"),
        ({"code": 200}, "must be uint8, float16, bfloat16 or float32"),
        ({"lanes": 4}, "scalar elements"),
        ({"lanes": 0}, "scalar elements"),
        ({"device_type": 7}, "DLPack device type 7"),
        ({"device_type": 0}, "DLPack device type 0"),
        ({"major": 2}, "speaks DLPack 2"),
    ],
    ids=str,
)
def test_a_producer_that_says_what_cannot_be_is_refused_and_gets_its_lease_back(
    wrong: dict[str, Any], match: str
) -> None:
    doors._DELETED.clear()
    with pytest.raises(ValueError, match=match):
        _core.norm_act(producer(**wrong))
    gc.collect()
    assert len(doors._DELETED) == 1


def test_what_may_not_be_written_is_not() -> None:
    x = np.zeros((1, 3, 4, 4), np.float32)
    with pytest.raises(ValueError, match="read-only"):
        _core.norm_act(x, out=producer(flags=1))


@pytest.mark.parametrize("device", ["cpu", None, (1,), ("cpu", 0), (1 << 40, 0)], ids=str)
def test_a_device_that_is_none_is_a_line(device: Any) -> None:
    odd = SimpleNamespace(__dlpack__=producer().__dlpack__, __dlpack_device__=lambda: device)
    with pytest.raises(ValueError, match="does not say on which device it lies"):
        _core.norm_act(odd)


@pytest.mark.parametrize("given", [None, "a capsule", 7, b"dltensor"], ids=str)
def test_a_capsule_that_is_none_is_a_line(given: Any) -> None:
    odd = SimpleNamespace(__dlpack__=lambda **_: given, __dlpack_device__=lambda: (1, 0))
    with pytest.raises(ValueError, match="gave no DLPack capsule"):
        _core.norm_act(odd)


@pytest.mark.parametrize(
    "wrong",
    [
        {"data": None}, {"data": ()}, {"data": (1 << 70, False)}, {"data": (4096,)}, {"typestr": None}, {"typestr": ""},
        {"typestr": ">f4"}, {"typestr": "<f9999999999"}, {"shape": None}, {"shape": ("a",)}, {"shape": (1,) * 9},
        {"shape": (-1, 3, 4, 4)}, {"strides": (1, 2)}, {"strides": "abcd"}, {"strides": (1, 1, 1, 1)},
    ],
    ids=str,
)  # fmt: skip
def test_a_cuda_array_interface_that_is_none_is_a_line(wrong: dict[str, Any]) -> None:
    facts = {"data": (4096, False), "typestr": "<f4", "shape": (1, 3, 4, 4), "strides": None, "version": 3}
    with pytest.raises(ValueError, match="norm_act: x "):
        _core.norm_act(SimpleNamespace(__cuda_array_interface__=facts | wrong))
    del facts[next(iter(wrong))]
    if "strides" in facts:
        with pytest.raises(ValueError, match="is none"):
            _core.norm_act(SimpleNamespace(__cuda_array_interface__=facts))


def test_a_lender_that_lets_go_while_it_is_read_cannot() -> None:
    """The buffer of a bytearray stays as it is as long as somebody looks at it."""
    memory = bytearray(3 * 16)
    tensor = _core.frame_to_tensor(np.frombuffer(memory, np.uint8).reshape(4, 4, 3), size=(4, 4))
    assert tensor.shape == (1, 3, 4, 4)
    view = np.frombuffer(memory, np.uint8)
    with pytest.raises(BufferError):
        memory.clear()
    assert view.size == 48


def test_sides_that_an_int_cannot_count_are_refused() -> None:
    x = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (1, 1, (1 << 30) + 8, 1), (0, 0, 4, 4))
    with pytest.raises(ValueError, match="is too large"):
        _core.norm_act(x, pad=0)
