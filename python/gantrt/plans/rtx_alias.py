"""The library TensorRT-RTX's wheel forgot.

Its ONNX parser asks the loader for "libtensorrt_rtx.so" when a graph has a plugin, but the wheel has only
"libtensorrt_rtx.so.1"; the process is then aborted. A loaded library of the first name that needs the second is all it
takes, and an ELF file that says just that is so small that we write it here.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import struct
import subprocess
import sys

from ..atomic import scratch_folder
from ..errors import BuildFailed

ASKED_FOR = b"libtensorrt_rtx.so"
THERE_IS = b"libtensorrt_rtx.so.1"

_MACHINES = {"x86_64": 62, "aarch64": 183}  # e_machine


@functools.cache
def provide() -> None:
    """Make plugins possible in this process, which has imported tensorrt_rtx.

    Tried in a process of its own first: where it does not help, the parser aborts. Raises BuildFailed if it does not.
    """
    trial = subprocess.run(
        [sys.executable, "-c", "from gantrt.plans.rtx_alias import _trial; _trial()"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    if trial.returncode:
        last = (trial.stderr.strip().splitlines() or [f"it ended with {trial.returncode}"])[-1]
        raise BuildFailed(
            f"tensorrt-rtx: its parser takes no plugins here ({last[:200]}); give --no-plugins, "
            "or a symbolic link libtensorrt_rtx.so beside libtensorrt_rtx.so.1"
        )
    _load()


def _load() -> None:
    with scratch_folder("gantrt-alias-") as folder:
        path = folder / "libtensorrt_rtx.so"
        path.write_bytes(elf_alias(ASKED_FOR, THERE_IS))
        ctypes.CDLL(str(path))  # stays mapped when the file is gone


def _trial() -> None:
    """Parse a graph of one NormAct."""
    import onnx.parser

    from . import norm_act
    from .targets import TENSORRT_RTX, make_logger

    trt = TENSORRT_RTX.load()
    _load()
    logger = make_logger(trt)
    builder = trt.Builder(logger)
    norm_act.register(trt, builder.get_plugin_registry(), TENSORRT_RTX)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18, "gantrt": 1]> agraph (float[1,8,8,8] x, float[8] s) => '
        '(float[1,8,8,8] y) { y = gantrt.NormAct <plugin_namespace="gantrt", plugin_version="1"> (x, s, s) }'
    )
    if not parser.parse(model.SerializeToString()):
        sys.exit(logger.gist())


def elf_alias(name: bytes, needed: bytes) -> bytes:
    """An ELF64 library called `name` that holds nothing and needs `needed`.

    One loadable segment with the string, symbol and hash tables and the dynamic section, as the System V ABI has them.
    """
    header, program, entry = 64, 56, 16
    strings = b"\0" + name + b"\0" + needed + b"\0"
    at = header + 2 * program
    symbols_at = at
    hash_at = symbols_at + 24  # one null symbol
    strings_at = hash_at + 16
    dynamic_at = -(-(strings_at + len(strings)) // 8) * 8
    dynamic = [
        (14, 1),  # DT_SONAME
        (1, 2 + len(name)),  # DT_NEEDED
        (4, hash_at),  # DT_HASH
        (5, strings_at),  # DT_STRTAB
        (6, symbols_at),  # DT_SYMTAB
        (10, len(strings)),  # DT_STRSZ
        (11, 24),  # DT_SYMENT
        (0, 0),
    ]
    size = dynamic_at + entry * len(dynamic)
    out = bytearray(size)
    machine = _MACHINES.get(platform.machine(), _MACHINES["x86_64"])
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    struct.pack_into("<16sHHIQQQIHHHHHH", out, 0, ident, 3, machine, 1, 0, header, 0, 0, header, program, 2, 64, 0, 0)
    read_write = 6
    struct.pack_into("<IIQQQQQQ", out, header, 1, read_write, 0, 0, 0, size, size, 0x10000)  # PT_LOAD
    bounds = (dynamic_at, dynamic_at, dynamic_at, entry * len(dynamic), entry * len(dynamic), 8)
    struct.pack_into("<IIQQQQQQ", out, header + program, 2, read_write, *bounds)  # PT_DYNAMIC
    struct.pack_into("<4I", out, hash_at, 1, 1, 0, 0)
    out[strings_at : strings_at + len(strings)] = strings
    for i, pair in enumerate(dynamic):
        struct.pack_into("<QQ", out, dynamic_at + entry * i, *pair)
    return bytes(out)
