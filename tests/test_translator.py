"""The Translator's promises: any frame in, the same kind of frame out, from any thread, in order, without surprises."""

from __future__ import annotations

import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import Future
from fractions import Fraction
from pathlib import Path
from typing import Any

import gantrt
import numpy as np
import pytest
from gantrt import video
from gantrt.errors import GantrtError, TruncatedInput, UnsupportedInput, UsageError
from gantrt.timing import Summary
from gantrt.translator import Translator
from numpy.typing import NDArray
from tiny_networks import write_generator, write_pointwise, write_swap

Frame = NDArray[np.uint8]
SIZE = (16, 24)


def load(path: Path, **options: Any) -> Translator:
    return gantrt.load(path, device="cpu", cache_dir="", precision="fp32", **options)


def picture(height: int = SIZE[0], width: int = SIZE[1], *rest: int, seed: int = 0) -> Frame:
    return np.random.default_rng(seed).integers(0, 256, (height, width, *(rest or (3,))), np.uint8)


@pytest.fixture
def identity(tmp_path: Path) -> Iterator[Translator]:
    with load(write_pointwise(tmp_path / "identity.onnx")) as translator:
        yield translator


@pytest.fixture
def generator(tmp_path: Path) -> Iterator[Translator]:
    with load(write_generator(tmp_path / "generator.onnx"), streams=2) as translator:
        yield translator


def test_identity_network_returns_every_frame_unchanged(identity: Translator) -> None:
    ramp = np.arange(16 * 24 * 3, dtype=np.uint32).reshape(16, 24, 3).astype(np.uint8)  # every value there is
    np.testing.assert_array_equal(identity(ramp), ramp)


def test_negative_network_returns_negatives(tmp_path: Path) -> None:
    with load(write_pointwise(tmp_path / "negative.onnx", gain=-1)) as translator:
        np.testing.assert_array_equal(translator(picture()), 255 - picture())


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (7, 3), (17, 25), (480, 640), (1081, 1919)])
def test_output_has_the_frames_size_whatever_it_is(generator: Translator, size: tuple[int, int]) -> None:
    frame = picture(*size)
    result = generator(frame)
    assert result.shape == frame.shape
    assert result.dtype == np.uint8


def test_a_flat_frame_stays_flat_at_any_size(identity: Translator) -> None:
    frame = np.full((301, 77, 3), (10, 128, 255), np.uint8)
    np.testing.assert_array_equal(identity(frame), frame)


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 1), (20, 30, 3)])
def test_one_channel_network_takes_grey_and_colour(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with load(write_pointwise(tmp_path / "grey.onnx", channels=1)) as translator:
        frame = np.full(shape, 77, np.uint8)
        np.testing.assert_array_equal(translator(frame), frame)


def test_bgr_frames_are_rgb_frames_in_another_order(tmp_path: Path) -> None:
    path = write_generator(tmp_path / "g.onnx")
    with load(path, color="rgb") as rgb, load(path, color="bgr") as bgr:
        frame = picture(33, 21)
        np.testing.assert_array_equal(bgr(frame[..., ::-1])[..., ::-1], rgb(frame))


def test_network_of_bgr_planes_sees_bgr_whatever_the_frames_are(tmp_path: Path) -> None:
    pure_red = np.zeros((*SIZE, 3), np.uint8)
    pure_red[..., 0] = 255
    for network in ("rgb", "bgr"):
        path = write_swap(tmp_path / f"{network}.onnx", color=network)
        with load(path) as translator:
            np.testing.assert_array_equal(translator(pure_red), pure_red[..., ::-1])
    # A gain on the network's first plane alone tells which of the frame's channels it was given.
    first_plane = tmp_path / "gain.onnx"
    for network, channel in (("rgb", 0), ("bgr", 2)):
        with load(_first_plane_to_black(first_plane, network)) as translator:
            black = translator(np.full((*SIZE, 3), 255, np.uint8))
            assert [c for c in range(3) if not black[..., c].any()] == [channel]


def _first_plane_to_black(path: Path, color: str) -> Path:
    import onnx

    write_pointwise(path, color=color)
    model = onnx.load(path)
    kernel = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1).copy()
    kernel[0, 0] = -1
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(kernel, "w"))
    onnx.save(model, path)
    return path


def test_read_only_and_strided_frames_are_fine(generator: Translator) -> None:
    frame = picture(40, 60)
    wanted = generator(frame)
    frame.setflags(write=False)
    np.testing.assert_array_equal(generator(frame), wanted)
    padded = np.zeros((40, 100, 3), np.uint8)
    padded[:, 20:80] = frame
    np.testing.assert_array_equal(generator(padded[:, 20:80]), wanted)
    flipped = np.ascontiguousarray(frame[::-1, ::-1])
    np.testing.assert_array_equal(generator(flipped[::-1, ::-1]), wanted)
    np.testing.assert_array_equal(generator(np.asfortranarray(frame)), wanted)


def test_out_is_filled_and_returned(generator: Translator) -> None:
    frame, out = picture(), np.zeros((*SIZE, 3), np.uint8)
    wanted = generator(frame)
    assert generator(frame, out=out) is out
    np.testing.assert_array_equal(out, wanted)
    assert generator(frame, out=frame) is frame  # in place
    np.testing.assert_array_equal(frame, wanted)


def test_out_may_be_a_window_of_a_larger_picture(generator: Translator) -> None:
    canvas = np.zeros((50, 70, 3), np.uint8)
    generator(picture(), out=canvas[10:26, 20:44])
    np.testing.assert_array_equal(canvas[10:26, 20:44], generator(picture()))
    assert not canvas[:10].any()
    assert not canvas[26:].any()
    assert not canvas[:, :20].any()
    assert not canvas[:, 44:].any()


def test_results_are_fresh_arrays(generator: Translator) -> None:
    first = generator(picture(seed=1))
    kept = first.copy()
    generator(picture(seed=2))
    np.testing.assert_array_equal(first, kept)


def test_out_allocates_nothing_per_frame(identity: Translator) -> None:
    frame = picture(480, 640)
    out = np.empty_like(frame)
    identity(frame, out=out)
    tracemalloc.start()
    try:
        for _ in range(5):
            identity(frame, out=out)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50_000  # a frame has 921,600 bytes, the network's smallest array 4,608


def test_torch_tensors_come_back_as_torch_tensors(generator: Translator) -> None:
    torch = pytest.importorskip("torch")
    frame = torch.from_numpy(picture(30, 40))
    result = generator(frame)
    assert isinstance(result, torch.Tensor)
    assert result.device == frame.device
    np.testing.assert_array_equal(result.numpy(), generator(frame.numpy()))
    out = torch.empty_like(frame)
    assert generator(frame, out=out) is out
    assert torch.equal(out, result)
    planes = torch.from_numpy(picture(30, 40)).permute(2, 0, 1).contiguous()  # as torch people keep pictures
    assert torch.equal(generator(planes.permute(1, 2, 0)), result)


class Exported:
    """An array of some library we have never heard of, that speaks DLPack."""

    def __init__(self, array: Frame) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()

    def __array_namespace__(self) -> Any:
        return Exported

    @staticmethod
    def from_dlpack(other: Any) -> Exported:
        return Exported(np.from_dlpack(other))


def test_any_dlpack_array_comes_back_as_its_own_kind(generator: Translator) -> None:
    result = generator(Exported(picture()))
    assert isinstance(result, Exported)
    np.testing.assert_array_equal(result.array, generator(picture()))


class OnDevice(Exported):
    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (np.zeros((4, 4, 4), np.uint8), r"frame\[..., :3\]"),
        (np.zeros((4, 4), np.uint8), r"\(H, W, 3\)"),
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((0, 4, 3), np.uint8), r"\(0, 4, 3\)"),
        (np.zeros((1, 40_000, 3), np.uint8), "32767"),
        ([[1, 2, 3]], "list"),
        (OnDevice(np.zeros((4, 4, 3), np.uint8)), "device memory"),
    ],
)
def test_what_is_no_frame_is_refused_by_name(identity: Translator, frame: Any, text: str) -> None:
    with pytest.raises(UnsupportedInput, match=text) as caught:
        identity(frame)
    assert caught.value.exit_code == 5
    np.testing.assert_array_equal(identity(picture()), picture())  # and nothing is broken by it


def test_outs_that_cannot_be_filled_are_refused(identity: Translator) -> None:
    frozen = np.zeros((*SIZE, 3), np.uint8)
    frozen.setflags(write=False)
    for out, text in [
        (np.zeros((4, 4, 3), np.uint8), "frame's shape"),
        (frozen, "read-only"),
        (np.zeros((*SIZE, 6), np.uint8)[..., ::2], "side by side"),
    ]:
        with pytest.raises(UnsupportedInput, match=text):
            identity(picture(), out=out)


def test_pad_keeps_every_pixel_in_its_place(tmp_path: Path) -> None:
    path = write_pointwise(tmp_path / "p.onnx", dynamic=True, multiple=8)
    with load(path, fit="pad") as translator:
        for size in [(16, 24), (17, 23), (1, 1), (3, 50)]:  # larger than the frame, too, is what reflection adds
            np.testing.assert_array_equal(translator(picture(*size)), picture(*size))
    with load(path, fit="pad", size=(32, 32)) as translator:
        np.testing.assert_array_equal(translator(picture(20, 32)), picture(20, 32))
        with pytest.raises(UsageError, match="does not fit"):
            translator(picture(33, 32))


def test_dynamic_engine_runs_at_the_frames_size_or_the_one_asked_for(tmp_path: Path) -> None:
    path = write_pointwise(tmp_path / "p.onnx", dynamic=True, multiple=4)
    with load(path) as translator:
        np.testing.assert_array_equal(translator(picture(40, 60)), picture(40, 60))
        assert translator(picture(41, 59)).shape == (41, 59, 3)
    with load(path, size=(8, 8)) as translator:
        assert np.abs(translator(picture(40, 60)).astype(int) - picture(40, 60)).max() > 10  # it went through 8x8


def test_fits_that_do_not_exist_or_do_not_suit_are_refused(tmp_path: Path) -> None:
    path = write_pointwise(tmp_path / "p.onnx")
    for options, text in [
        ({"fit": "stretch"}, "'resize', 'pad' and 'tile'"),
        ({"fit": "pad", "overlap": 4}, "is for fit 'tile'"),
        ({"fit": "tile", "overlap": 9}, "must be 0 to 8"),
    ]:
        with pytest.raises(UsageError, match=text):
            load(path, **options)
    with load(path, fit="pad") as translator, pytest.raises(UsageError, match="use 'tile' or 'resize'"):
        translator(picture(17, 24))


@pytest.mark.parametrize("options", [{"color": "yuv"}, {"streams": 0}, {"threads": 0}, {"warmup": -1}])
def test_options_that_make_no_sense_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        load(write_pointwise(tmp_path / "p.onnx"), **options)


@pytest.mark.parametrize("batch", [1, 3])
def test_translate_equals_one_by_one(tmp_path: Path, batch: int) -> None:
    single, batched = write_generator(tmp_path / "1.onnx"), write_generator(tmp_path / "n.onnx", batch=batch)
    frames = [picture(*size, seed=i) for i, size in enumerate([(16, 24), (30, 20), (16, 24), (5, 5), (16, 24)])]
    with load(single) as one, load(batched) as many:
        results = many.translate(frames)
        for frame, result in zip(frames, results, strict=True):
            assert np.abs(result.astype(int) - one(frame)).max() <= 1  # sums may be ordered differently
        assert many.translate([]) == []
        assert many.stats().frames == 5


def test_batches_of_a_dynamic_engine_hold_one_size_only(tmp_path: Path) -> None:
    path = write_pointwise(tmp_path / "p.onnx", dynamic=True, batch=2)
    frames = [picture(*size) for size in [(8, 8), (8, 8), (8, 8), (4, 8), (8, 8)]]
    with load(path) as translator:
        for frame, result in zip(frames, translator.translate(frames), strict=True):
            np.testing.assert_array_equal(result, frame)


def test_single_frame_through_a_batch_engine(tmp_path: Path) -> None:
    with load(write_pointwise(tmp_path / "p.onnx", batch=4)) as translator:
        np.testing.assert_array_equal(translator(picture()), picture())


@pytest.mark.parametrize("streams", [1, 3])
def test_eight_threads_get_their_own_results(tmp_path: Path, streams: int) -> None:
    with load(write_generator(tmp_path / "g.onnx"), streams=streams) as translator:
        frames = [picture(20 + i, 30 - i, seed=i) for i in range(8)]
        wanted = [translator(frame) for frame in frames]
        right: list[int] = []

        def hammer(i: int) -> None:
            out = np.empty_like(frames[i])
            for _ in range(20):
                np.testing.assert_array_equal(translator(frames[i], out=out), wanted[i])
            right.append(i)

        threads = [threading.Thread(target=hammer, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(right) == list(range(8))
        assert translator.stats().frames == 8 + 8 * 20


def test_submitted_frames_come_back_to_their_own_futures(generator: Translator) -> None:
    frames = [picture(10 + i, 20, seed=i) for i in range(20)]
    futures = [generator.submit(frame) for frame in frames]
    for frame, future in zip(frames, futures, strict=True):
        np.testing.assert_array_equal(future.result(timeout=60), generator(frame))


class Gate:
    """An engine's `run` that waits until it is let through."""

    def __init__(self, translator: Translator) -> None:
        self.entered, self.open = threading.Semaphore(0), threading.Event()
        self._run = translator.engine.run
        translator.engine.run = self.run  # type: ignore[method-assign]

    def run(self, x: Any, y: Any, stream: int | None = None) -> None:
        self.entered.release()
        assert self.open.wait(60)
        self._run(x, y, stream)


def test_submit_blocks_when_the_queue_is_full(identity: Translator) -> None:
    gate = Gate(identity)
    futures = [identity.submit(picture(seed=i)) for i in range(2)]  # one at work, one waiting: the queue is full
    assert gate.entered.acquire(timeout=60)
    third: list[Future[Any]] = []
    blocked = threading.Thread(target=lambda: third.append(identity.submit(picture(seed=2))))
    blocked.start()
    time.sleep(0.1)
    assert blocked.is_alive()
    gate.open.set()
    blocked.join(60)
    for i, future in enumerate([*futures, *third]):
        np.testing.assert_array_equal(future.result(60), picture(seed=i))
    assert identity.stats().wait.max >= 50  # the third one's time in the queue is not hidden


def test_an_error_reaches_its_own_future_and_frees_its_place(identity: Translator) -> None:
    for _ in range(5):  # more than the queue holds
        with pytest.raises(UnsupportedInput):
            identity.submit(np.zeros((2, 2), np.uint8)).result(60)
    np.testing.assert_array_equal(identity.submit(picture()).result(60), picture())


def test_close_finishes_what_is_queued_and_may_be_called_again(tmp_path: Path) -> None:
    translator = load(write_pointwise(tmp_path / "p.onnx"))
    gate = Gate(translator)
    futures = [translator.submit(picture(seed=i)) for i in range(2)]
    assert gate.entered.acquire(timeout=60)
    closers = [threading.Thread(target=translator.close) for _ in range(2)]
    for closer in closers:
        closer.start()
    gate.open.set()
    for closer in closers:
        closer.join(60)
    translator.close()
    for i, future in enumerate(futures):
        np.testing.assert_array_equal(future.result(0), picture(seed=i))


def test_use_after_close_is_a_clear_error(tmp_path: Path) -> None:
    with load(write_pointwise(tmp_path / "p.onnx")) as translator:
        translator(picture())
    for use in (translator, translator.submit):
        with pytest.raises(GantrtError, match="closed"):
            use(picture())
    with pytest.raises(GantrtError, match="closed"):
        translator.translate([picture()])


def test_stats_count_frames_and_split_their_time(identity: Translator) -> None:
    assert identity.stats().frames == 0
    assert identity.stats().first_frame_ms is None
    for _ in range(20):
        identity(picture())
    stats = identity.stats()
    assert stats.frames == 20
    assert stats.load_ms > 0
    assert stats.first_frame_ms is not None
    assert stats.first_frame_ms > 0
    parts = [stats.wait, stats.pre, stats.engine, stats.post]
    assert sum(part.mean for part in parts) == pytest.approx(stats.total.mean)
    for part in (*parts, stats.total):
        assert isinstance(part, Summary)
        assert 0 <= part.min <= part.p50 <= part.p90 <= part.p95 <= part.p99 <= part.max
    identity(picture())
    assert identity.stats(reset=True).frames == 21
    assert identity.stats().frames == 0


def test_info_says_what_runs_where(generator: Translator) -> None:
    info = generator.info
    assert (info.runtime, info.device, info.streams, info.color, info.fit) == ("openvino", "cpu", 2, "rgb", "resize")
    assert info.path.name == "generator.onnx"
    assert "openvino" in str(info)
    assert info.precision in str(info)


class Source:
    """A source in memory; it breaks after `breaks_at` frames."""

    def __init__(self, count: int, breaks_at: int | None = None) -> None:
        self.count, self.breaks_at = count, breaks_at
        self.read, self.closed = 0, False

    def __iter__(self) -> Iterator[video.Frame]:
        for i in range(self.count):
            if i == self.breaks_at:
                raise TruncatedInput("clip.mp4: ended early")
            self.read += 1
            yield video.Frame(picture(seed=i), i, 512 * i, Fraction(1, 15360), 512)

    def close(self) -> None:
        self.closed = True


def test_stream_keeps_order_number_and_time_stamps(generator: Translator) -> None:
    source = Source(15)
    items = list(generator.stream(source))
    assert [item.index for item in items] == list(range(15))
    assert [item.pts for item in items] == [512 * i for i in range(15)]
    assert [item.seconds for item in items] == [i / 30 for i in range(15)]
    assert all(item.latency_ms > 0 for item in items)
    for item in items:
        np.testing.assert_array_equal(item.image, generator(picture(seed=item.index)))
    assert source.closed


def test_stream_gives_what_came_before_the_break_and_then_raises(generator: Translator) -> None:
    source, seen = Source(9, breaks_at=6), []
    with pytest.raises(TruncatedInput, match="ended early"):
        seen.extend(item.index for item in generator.stream(source))
    assert source.closed
    seen = []
    with pytest.raises(TruncatedInput):  # noqa: PT012
        for item in generator.stream(Source(9, breaks_at=6)):
            seen.append(item.index)
    assert seen == list(range(6))


def test_leaving_a_stream_early_closes_its_source_and_reads_little_ahead(generator: Translator) -> None:
    source = Source(1000)
    for item in generator.stream(source):
        if item.index == 3:
            time.sleep(0.2)  # a slow caller: the reader must wait for it
            break
    deadline = time.monotonic() + 10
    while not source.closed and time.monotonic() < deadline:
        time.sleep(0.01)
    assert source.closed
    assert source.read <= 4 + generator.info.streams + 2


def test_stream_of_rgb_frames_through_a_bgr_translator_comes_out_bgr(tmp_path: Path) -> None:
    with load(write_pointwise(tmp_path / "p.onnx"), color="bgr") as translator:
        for item in translator.stream(Source(2)):
            np.testing.assert_array_equal(item.image, picture(seed=item.index)[..., ::-1])


def test_stream_of_a_picture_file(tmp_path: Path, identity: Translator) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "p.png"), picture()[..., ::-1])
    (item,) = identity.stream(tmp_path / "p.png")
    np.testing.assert_array_equal(item.image, picture())


def test_file_without_manifest_is_told_its_colours_by_the_caller(tmp_path: Path) -> None:
    path = write_pointwise(tmp_path / "p.onnx", manifest=False)
    with load(path, network_color="bgr", range=(0.0, 1.0)) as translator:
        assert (translator.info.manifest.color, translator.info.manifest.range) == ("bgr", (0.0, 1.0))
        np.testing.assert_array_equal(translator(picture()), picture())


def test_stream_of_nothing_ends(generator: Translator) -> None:
    assert list(generator.stream(Source(0))) == []


@pytest.mark.parametrize("error", [MemoryError("no room"), SystemExit(3), RecursionError("too deep"), OSError("gone")])
def test_whatever_ends_the_reading_thread_is_raised_where_the_frames_are_taken(
    identity: Translator, error: BaseException
) -> None:
    class Breaking(Source):
        def __iter__(self) -> Iterator[video.Frame]:
            yield video.Frame(picture(), 0)
            raise error

    source = Breaking(1)
    items = identity.stream(source)
    assert next(items).index == 0
    with pytest.raises(type(error)):
        next(items)
    assert source.closed


def test_a_system_without_threads_is_told_as_such(identity: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    source = Source(1)
    with pytest.raises(GantrtError, match=r"the system gives it no thread to read in \(can't start"):
        next(identity.stream(source))
    assert source.closed
    with pytest.raises(GantrtError, match=r"translator: the system gives it no thread \(can't start"):
        identity.submit(picture())
    np.testing.assert_array_equal(identity(picture()), picture())  # which needs none


def test_close_waits_for_calls_under_way_though_others_keep_coming(tmp_path: Path) -> None:
    translator = load(write_pointwise(tmp_path / "i.onnx"), streams=2)
    refused = []

    def go_on() -> None:
        try:
            while True:
                translator(picture())
        except GantrtError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=go_on) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.02)
    begin = time.monotonic()
    translator.close()
    assert time.monotonic() - begin < 5
    for thread in threads:
        thread.join(5)
    assert refused == ["translator: it is closed; load the engine again"] * 4
