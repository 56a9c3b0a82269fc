"""The few calls of the CUDA driver that running a plan takes, by ctypes: it is there wherever a GPU is."""

from __future__ import annotations

import ctypes
import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import DeviceUnavailable, GantrtError
from ..frame_pipelines import failure

log = logging.getLogger("gantrt")

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_NON_BLOCKING = 1


@functools.cache
def _open() -> tuple[Any, str]:
    """(the driver, ready), or (None, why not)."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None, "no NVIDIA driver"
    if library.cuInit(0):
        return None, "the NVIDIA driver finds no GPU"
    return library, ""


def missing() -> str:
    """Why there is no GPU; "" where there is one."""
    return _open()[1]


def capability(index: int = 0) -> int | None:
    """Ten times the compute capability of a GPU; None where there is none."""
    if missing():
        return None
    device, values = _device(index), []
    for attribute in (_MAJOR, _MINOR):
        value = ctypes.c_int()
        _call("cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
        values.append(value.value)
    return 10 * values[0] + values[1]


def name(index: int = 0) -> str:
    text = ctypes.create_string_buffer(128)
    _call("cuDeviceGetName", text, len(text), _device(index))
    return text.value.decode(errors="replace")


@contextmanager
def on_device(index: int) -> Iterator[None]:
    """The primary context of a GPU, which TensorRT, torch and we share, current in this thread."""
    device, context = _device(index), ctypes.c_void_p()
    _call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    try:
        _call("cuCtxPushCurrent_v2", context)
        try:
            yield
        finally:
            _let_go("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))
    finally:
        _let_go("cuDevicePrimaryCtxRelease_v2", device)


class Stream:
    """A CUDA stream of its own; `handle` is its address."""

    def __init__(self) -> None:
        handle = ctypes.c_void_p()
        _call("cuStreamCreate", ctypes.byref(handle), _NON_BLOCKING)
        self.handle = handle.value or 0

    def synchronize(self) -> None:
        _call("cuStreamSynchronize", ctypes.c_void_p(self.handle))

    def close(self) -> None:
        _let_go("cuStreamDestroy_v2", ctypes.c_void_p(self.handle))


class Buffer:
    """Device memory of `size` bytes; `address` is aligned to 256."""

    def __init__(self, size: int) -> None:
        address = ctypes.c_uint64()
        _call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        self.address, self.size = address.value, size

    def upload(self, host: int, stream: Stream) -> None:
        """Fill it from host memory, in the order of `stream`."""
        args = (ctypes.c_uint64(self.address), ctypes.c_void_p(host), ctypes.c_size_t(self.size))
        _call("cuMemcpyHtoDAsync_v2", *args, ctypes.c_void_p(stream.handle))

    def download(self, host: int, stream: Stream) -> None:
        args = (ctypes.c_void_p(host), ctypes.c_uint64(self.address), ctypes.c_size_t(self.size))
        _call("cuMemcpyDtoHAsync_v2", *args, ctypes.c_void_p(stream.handle))

    def close(self) -> None:
        _let_go("cuMemFree_v2", ctypes.c_uint64(self.address))


def _device(index: int) -> ctypes.c_int:
    device = ctypes.c_int()
    library, why = _open()
    if why or library.cuDeviceGet(ctypes.byref(device), index):
        raise DeviceUnavailable(f"cuda:{index}: {why or 'there is no such GPU; nvidia-smi -L lists those there are'}")
    return device


def _call(function: str, *args: Any) -> None:
    library, why = _open()
    if why:
        raise DeviceUnavailable(f"cuda: {why}")
    status = getattr(library, function)(*args)
    if status:
        text = ctypes.c_char_p()
        library.cuGetErrorString(status, ctypes.byref(text))
        raise failure(f"cuda: {function}: {(text.value or b'unknown error').decode()} ({status})")


def _let_go(function: str, *args: Any) -> None:
    """Of a GPU that is gone everything is gone: what went wrong was raised when it was used."""
    try:
        _call(function, *args)
    except GantrtError as error:
        log.debug("%s", error)
