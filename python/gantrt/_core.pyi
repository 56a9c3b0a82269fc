"""The C++ core. Arrays are numpy, torch, cupy, pycuda, ...: anything with DLPack or __cuda_array_interface__."""

from collections.abc import Callable
from typing import Any, Literal, TypeVar

_Array = TypeVar("_Array")

_Act = Literal["none", "relu", "leaky_relu"]
_Color = Literal["rgb", "bgr"]
_Resize = Literal["auto", "area", "bilinear"]

def norm_act(
    x: _Array,
    scale: Any = None,
    shift: Any = None,
    rho: Any = None,
    residual: Any = None,
    *,
    eps: float = 1e-5,
    unbiased: bool = False,
    act: _Act = "none",
    slope: float = 0.2,
    pad: int = 0,
    rpad: int = 0,
    layout: Literal["nchw", "nhwc"] = "nchw",
    mode: Literal["auto", "cluster", "cooperative", "two_kernels"] = "auto",
    out: _Array | None = None,
    threads: int = 0,
    stream: int | None = None,
) -> _Array: ...
def norm_act_launch(
    x: int,
    *,
    scale: int,
    shift: int,
    rho: int,
    residual: int,
    y: int,
    shape: tuple[int, int, int, int],
    per_sample: bool,
    dtype: str,
    layout: Literal["nchw", "nhwc"],
    eps: float,
    slope: float,
    unbiased: bool,
    pad: int,
    rpad: int,
    workspace: int,
    workspace_bytes: int,
    stream: int,
    mode: Literal["auto", "cluster", "cooperative", "two_kernels"] = "auto",
) -> None: ...
def norm_act_workspace_bound(n: int, c: int) -> int: ...
def frame_to_tensor(
    frame: Any,
    out: Any = None,
    *,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    color: _Color = "rgb",
    resize: _Resize = "auto",
    pad: int = 0,
    range: tuple[float, float] = (-1.0, 1.0),
    threads: int = 0,
    stream: int | None = None,
) -> Any: ...
def tensor_to_frame(
    x: Any,
    out: Any = None,
    *,
    size: tuple[int, int] | None = None,
    color: _Color = "rgb",
    resize: _Resize = "auto",
    crop: int = 0,
    range: tuple[float, float] = (-1.0, 1.0),
    tanh: bool = False,
    threads: int = 0,
    stream: int | None = None,
) -> Any: ...

class FramePipeline:
    def __init__(
        self,
        enqueue: Callable[[int, int, int, int], object],
        *,
        frame: tuple[int, int, int],
        result: tuple[int, int, int],
        input: tuple[int, int, int],
        output: tuple[int, int, int],
        dtype: str,
        output_dtype: str,
        layout: Literal["nchw", "nhwc"] = "nchw",
        slots: int = 1,
        device: int = 0,
        color: _Color = "rgb",
        resize: _Resize = "auto",
        range: tuple[float, float] = (-1.0, 1.0),
    ) -> None: ...
    def submit(self, frame: Any, *, stream: int | None = None) -> int: ...
    def result(self, ticket: int, out: _Array, *, stream: int | None = None) -> _Array: ...
    def time_stages(self, frame: Any) -> dict[str, float]: ...
    @property
    def graph_active(self) -> bool: ...
    @property
    def why_no_graph(self) -> str: ...

def cuda_built() -> bool: ...
def cuda_architectures() -> list[int]: ...
def cpu_features() -> list[str]: ...
def default_threads() -> int: ...
