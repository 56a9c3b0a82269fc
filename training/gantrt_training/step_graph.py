"""A training step as one CUDA graph: captured once for each set of due phases, then replayed.

At batch 1 a step is thousands of short kernels, and a CPU starts them more slowly than a GPU runs them. A graph starts
them all at once. What a graph holds is fixed: addresses, shapes, and every number that Python worked out while it was
captured. So whatever differs from step to step lies in tensors on the device that are filled before a replay: the
pictures, the learning rates, what the replay pools do (pool.py) and the share of the moving average (ema.py). Code of a
family that asks anything else of the step, or waits for the GPU, cannot be captured.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from gantrt.errors import UsageError
from torch import Tensor
from torch.optim import Optimizer

from .compilation import Compile
from .family import Phase
from .pool import StaticPool

EAGER = 3  # steps of each set of phases before it is captured: they choose algorithms and make the optimisers' state


class Noted(NamedTuple):
    """The losses of one phase of a step."""

    phase: str
    names: tuple[str, ...]
    values: Tensor  # (len(names),) detached, on the device


Work = Callable[[Tensor, Tensor, Sequence[Phase]], list[Noted]]  # a step on pictures of A and B


class Capture(Protocol):
    """How a step becomes one that can be replayed. CudaCapture is the one that trains; tests have their own."""

    def eagerly(self, work: Callable[[], list[Noted]]) -> list[Noted]:
        """Run it, in the place where it will be captured."""
        ...

    def capture(self, work: Callable[[], list[Noted]]) -> tuple[list[Noted], Callable[[], None]]:
        """Do not run it, but return what does, and the list whose values are good after each such run."""
        ...

    def forget(self) -> None:
        """All that was captured is dropped next: nothing of it may run any more."""
        ...


class CudaCapture:
    def __init__(self, device: torch.device) -> None:
        if device.type != "cuda":
            raise UsageError("train: cuda_graph needs a GPU; set cuda_graph=false, or give --device cuda")
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool: Any = None  # of memory: no two graphs run at a time, so they share one

    def eagerly(self, work: Callable[[], list[Noted]]) -> list[Noted]:
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            noted = work()
        torch.cuda.current_stream(self._device).wait_stream(self._stream)
        return noted

    def capture(self, work: Callable[[], list[Noted]]) -> tuple[list[Noted], Callable[[], None]]:
        gc.collect()  # what is collected within a capture may not be freed there
        graph = torch.cuda.CUDAGraph()
        # The outer stream is for a capture that fails and does not leave its own. thread_local: threads that decode
        # pictures, serve or watch may use the GPU meanwhile.
        within = torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local")
        with torch.cuda.stream(self._stream), within:
            noted = work()
        self._pool = self._pool or graph.pool()
        return noted, graph.replay

    def forget(self) -> None:
        torch.cuda.synchronize(self._device)
        self._pool = None  # the old one ends with its last graph and cannot be used again


@dataclass
class _Captured:
    """One set of due phases."""

    made: int = 0  # steps
    queries: dict[str, list[int]] = field(default_factory=dict)  # pictures that a step queries of each pool
    noted: list[Noted] = field(default_factory=list)
    replay: Callable[[], None] | None = None


class StepGraphs:
    """Makes steps as `work` does: the first `EAGER` of each set of due phases one by one, all others by replaying.

    Every call is one step of the training, whichever way it is made.
    """

    def __init__(self, work: Work, pools: Mapping[str, StaticPool], capture: Capture) -> None:
        self._work, self._pools, self._capture = work, pools, capture
        self._inputs: tuple[Tensor, Tensor] | None = None
        self._captured: dict[tuple[Phase, ...], _Captured] = {}

    def __call__(self, a: Tensor, b: Tensor, due: Sequence[Phase]) -> list[Noted]:
        """Raises UsageError if the pictures have another shape than before, or if the step cannot be captured."""
        a, b = self._fill_inputs(a, b)
        one = self._captured.setdefault(tuple(due), _Captured())
        one.made += 1
        if one.made <= EAGER:
            self._begin(drawing=True)
            noted = self._capture.eagerly(lambda: self._work(a, b, due))
            one.queries = {name: list(pool.queries) for name, pool in self._pools.items()}
            return noted
        if one.replay is None:
            one.noted, one.replay = self._captured_step(a, b, due)
        for name, pool in self._pools.items():
            pool.draw(one.queries[name])
        one.replay()
        return [note._replace(values=note.values.clone()) for note in one.noted]

    def drop(self) -> None:
        """Forget all graphs: tensors that they know by their addresses have been replaced."""
        self._capture.forget()
        self._captured.clear()

    def _captured_step(self, a: Tensor, b: Tensor, due: Sequence[Phase]) -> tuple[list[Noted], Callable[[], None]]:
        def work() -> list[Noted]:
            self._begin(drawing=False)
            return self._work(a, b, due)

        try:
            return self._capture.capture(work)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = str(_first(error)).partition("\n")[0]
            raise UsageError(f"train: this step cannot be captured ({reason}); set cuda_graph=false") from error

    def _begin(self, *, drawing: bool) -> None:
        for pool in self._pools.values():
            pool.begin(drawing=drawing)

    def _fill_inputs(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        if self._inputs is None:
            self._inputs = torch.empty_like(a), torch.empty_like(b)
        for mine, given in zip(self._inputs, (a, b), strict=True):
            if mine.shape != given.shape:
                raise UsageError(
                    f"train: cuda_graph wants pictures of one shape, got {tuple(mine.shape)} and then "
                    f"{tuple(given.shape)}; cut them (preprocess=resize_and_crop), or set cuda_graph=false"
                )
            mine.copy_(given, non_blocking=True)
        return self._inputs


def _first(error: BaseException) -> BaseException:
    """The error that began it: the end of a broken capture raises another one."""
    while error.__context__ is not None:
        error = error.__context__
    return error


def refuse_what_no_graph_holds(*, processes: int, precision: Any, compile: Compile, twice: bool) -> None:
    """UsageError for what cannot be captured.

    precision  the plugin of Fabric
    twice      the pictures of a batch are made twice in a step, with dropout
    """
    if processes > 1:
        raise UsageError(f"train: cuda_graph is for one process, here are {processes}; set cuda_graph=false")
    if getattr(precision, "scaler", None) is not None:
        raise UsageError("train: cuda_graph goes with bf16 and fp32, not with fp16, whose scaler watches each step")
    if compile not in ("none", "default"):
        raise UsageError(f"train: compile={compile} makes CUDA graphs of its own; with cuda_graph set compile=default")
    if twice:
        raise UsageError(
            "train: cuda_graph cannot drop the same features twice, as accumulate asks for; set accumulate=1 or "
            "dropout=0"
        )


def make_capturable(optimizer: Optimizer, device: torch.device) -> None:
    """Let an Adam step within a graph: its learning rates become tensors, to be filled. UsageError for any other."""
    if type(optimizer) is not torch.optim.Adam:
        raise UsageError(f"train: cuda_graph captures Adam, not {type(optimizer).__name__}; set cuda_graph=false")
    optimizer._warned_capturable_if_run_uncaptured = True  # as the first steps are
    for group in optimizer.param_groups:
        group["capturable"] = True
        group["lr"] = torch.tensor(float(group["lr"]), device=device)
