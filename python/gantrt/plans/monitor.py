"""A build that shows how far it is and that Ctrl-C ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

from ..progress import Progress

_Result = TypeVar("_Result")
_PATIENCE = 0.2  # seconds


class Watch:
    """Counts the steps of TensorRT's outermost phases on `progress`; tells the builder to stop once `stop` is set."""

    def __init__(self, progress: Progress) -> None:
        self.stop = threading.Event()
        self._progress = progress
        self._left: dict[str, int] = {}  # steps of each outermost phase; phases inside others only refine these

    def begin(self, phase: str, parent: str | None, steps: int) -> None:
        if not parent:
            self._left[phase] = steps
            self._progress.total = (self._progress.total or 0) + steps

    def step(self, phase: str) -> bool:
        """Whether to go on."""
        self._count(phase, 1)
        return not self.stop.is_set()

    def finish(self, phase: str) -> None:
        self._count(phase, self._left.get(phase, 0))  # TensorRT does not report every last step

    def _count(self, phase: str, steps: int) -> None:
        done = min(steps, self._left.get(phase, 0))
        if done:
            self._left[phase] -= done
            self._progress.update(done)


def make_monitor(trt: Any, watch: Watch) -> Any:
    """TensorRT's IProgressMonitor, speaking to `watch`."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            watch.begin(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return watch.step(phase_name)

        def phase_finish(self, phase_name: str) -> None:
            watch.finish(phase_name)

    return Monitor()


def interruptible(work: Callable[[], _Result], stop: threading.Event) -> _Result:
    """The result of `work`, done in another thread, as a signal reaches only the main one and only in Python.

    On Ctrl-C sets `stop`, waits until `work` has ended, and raises KeyboardInterrupt.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="gantrt-build") as pool:
        future = pool.submit(work)
        try:
            while not wait([future], timeout=_PATIENCE).done:  # a signal that another thread caught is seen on waking
                pass
        except KeyboardInterrupt:
            stop.set()
            raise
        return future.result()
