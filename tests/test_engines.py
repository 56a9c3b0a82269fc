"""Engines: all of them give one answer, and refuse with a reason."""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gantrt import engines
from gantrt.engines import Engine, Options, fit_size, list_engines, load_engine, open_engine
from gantrt.errors import DeviceUnavailable, EngineCorrupt, EngineMismatch, GantrtError, UsageError
from gantrt.manifest import InputSpec, Manifest
from numpy.typing import NDArray
from tiny_networks import write_bfloat16, write_generator, write_pointwise

FP32 = Options(precision="fp32", cache_dir="")
# Two implementations of the same float32 sums, of a few hundred terms near 1: their orders differ.
AGREE = {"rtol": 1e-5, "atol": 1e-5}


def run(engine: Engine, x: NDArray[np.float32]) -> NDArray[np.float32]:
    y = np.full_like(x, np.nan)
    engine.run(x, y)
    return y


def noise(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


@pytest.mark.parametrize("name", list_engines())
def test_engine_module_keeps_the_contract(name: str) -> None:
    module = load_engine(name)
    assert all(suffix.startswith(".") for suffix in module.SUFFIXES)
    assert set(module.DEVICES) <= {"cpu", "cuda"}
    assert isinstance(module.PRIORITY, int)
    assert module.missing() is None or "pip install" in module.missing()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("batch", [1, 2])
def test_openvino_in_fp32_equals_onnxruntime(tmp_path: Path, channels: int, batch: int) -> None:
    path = write_generator(tmp_path / "g.onnx", channels=channels, batch=batch)
    x = noise(batch, channels, 16, 24)
    got = run(open_engine(path, FP32, "openvino"), x)
    np.testing.assert_allclose(got, run(open_engine(path, FP32, "onnxruntime"), x), **AGREE)


def test_dynamic_engine_takes_any_size_even_those_it_has_forgotten(tmp_path: Path) -> None:
    path = write_generator(tmp_path / "g.onnx", dynamic=True)
    fast, slow = open_engine(path, FP32, "openvino"), open_engine(path, FP32, "onnxruntime")
    for height, width in [(16, 24), (5, 7), (1, 1), (40, 8), (8, 40), (33, 31), (5, 7)]:  # more than it keeps
        x = noise(1, 3, height, width)
        np.testing.assert_allclose(run(fast, x), run(slow, x), **AGREE)


@pytest.mark.parametrize(("runtime", "precision"), [("openvino", "fp32"), ("onnxruntime", "fp16")])
def test_half_precision_inputs_are_the_engines_business(tmp_path: Path, runtime: str, precision: str) -> None:
    path = write_generator(tmp_path / "g.onnx", half=True, precision="fp16")
    reference = write_generator(tmp_path / "f.onnx")
    x = noise(1, 3, 16, 24)
    got = run(open_engine(path, Options(precision=precision, cache_dir=""), runtime), x)
    np.testing.assert_allclose(got, run(open_engine(reference, FP32), x), atol=2e-2)  # ~10 bits, two convolutions


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_run_is_thread_safe(tmp_path: Path, runtime: str) -> None:
    engine = open_engine(write_generator(tmp_path / "g.onnx"), FP32, runtime)
    inputs = [noise(1, 3, 16, 24, seed=seed) for seed in range(8)]
    wanted = [run(engine, x) for x in inputs]
    right: list[int] = []

    def hammer(i: int) -> None:
        for _ in range(25):
            np.testing.assert_array_equal(run(engine, inputs[i]), wanted[i])
        right.append(i)

    threads = [threading.Thread(target=hammer, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(right) == list(range(8))


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_run_releases_the_gil(tmp_path: Path, runtime: str) -> None:
    engine = open_engine(write_generator(tmp_path / "g.onnx", width=64, size=(384, 384)), FP32, runtime)
    x, done, turns = noise(1, 3, 384, 384), threading.Event(), 0

    def count() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1

    counter = threading.Thread(target=count)
    run(engine, x)
    counter.start()
    before = turns
    y = np.empty_like(x)
    for _ in range(3):
        engine.run(x, y)
    during = turns - before
    done.set()
    counter.join()
    assert during > 1000  # with the GIL held it would be a handful of switches


def test_a_compiled_model_is_kept_and_never_mistaken_for_another(tmp_path: Path) -> None:
    options = Options(precision="fp32", cache_dir=str(tmp_path / "cache"))
    a, b = write_generator(tmp_path / "a.onnx", seed=1), write_generator(tmp_path / "b.onnx", seed=2)
    x = noise(1, 3, 16, 24)
    first, other = open_engine(a, options), open_engine(b, options)
    assert not first.from_cache
    assert not other.from_cache
    assert np.abs(run(first, x) - run(other, x)).max() > 0.01  # same graph, other weights
    again = open_engine(a, options)
    assert again.from_cache
    np.testing.assert_array_equal(run(again, x), run(first, x))
    assert not open_engine(a, replace(options, threads=1)).from_cache  # another option, another model


@pytest.mark.parametrize("harm", ["cut", "emptied", "a byte changed", "another program's"])
def test_a_damaged_cache_costs_time_and_nothing_else(tmp_path: Path, harm: str) -> None:
    path, options = write_generator(tmp_path / "g.onnx"), Options(cache_dir=str(tmp_path / "cache"))
    x = noise(1, 3, 16, 24)
    wanted = run(open_engine(path, options), x)
    (file,) = (tmp_path / "cache").iterdir()
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    changed = {"cut": data[:5000], "emptied": b"", "a byte changed": data, "another program's": b"text " * 2000}
    file.write_bytes(changed[harm])
    engine = open_engine(path, options)
    assert not engine.from_cache
    np.testing.assert_array_equal(run(engine, x), wanted)
    assert open_engine(path, options).from_cache  # mended


def test_what_openvino_cannot_import_is_compiled_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gantrt.model_cache import ModelCache

    path, options = write_generator(tmp_path / "g.onnx"), Options(cache_dir=str(tmp_path / "cache"))
    open_engine(path, options)
    (file,) = (tmp_path / "cache").iterdir()
    cache = ModelCache(tmp_path / "cache", 1 << 30)
    cache.write(file.stem, b"sound by its checksum, but no model" * 100)
    engine = open_engine(path, options)
    assert not engine.from_cache
    assert run(engine, noise(1, 3, 16, 24)).any()


def test_cache_folder_follows_the_environment_and_may_be_unwritable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_pointwise(tmp_path / "p.onnx")
    monkeypatch.delenv("GANTRT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    open_engine(path, Options())
    assert list((tmp_path / "home" / "gantrt").rglob("*.model"))
    monkeypatch.setenv("GANTRT_CACHE", str(tmp_path / "elsewhere"))
    assert not open_engine(path, Options()).from_cache
    assert list((tmp_path / "elsewhere").glob("*.model"))
    monkeypatch.setenv("GANTRT_CACHE", "off")
    assert not open_engine(path, Options()).from_cache
    (tmp_path / "file").touch()
    monkeypatch.setenv("GANTRT_CACHE", str(tmp_path / "file" / "below"))  # no folder can be made below a file
    assert run(open_engine(path, Options()), noise(1, 3, 16, 24)).any()


def test_streams_are_as_many_as_asked_for(tmp_path: Path) -> None:
    path = write_generator(tmp_path / "g.onnx")
    for streams in (1, 2):
        engine: Any = open_engine(path, replace(FP32, streams=streams))
        assert engine._at((1, 16, 24)).model.get_property("NUM_STREAMS") == streams


def test_engine_says_in_which_precision_its_layers_compute(tmp_path: Path) -> None:
    path = write_generator(tmp_path / "g.onnx")
    assert open_engine(path, FP32).arithmetic() == {"fp32": 2}
    default = open_engine(path, Options(cache_dir=""))
    assert default.arithmetic() == {default.precision: 2}
    assert open_engine(path, FP32, "onnxruntime").arithmetic() == {}


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_threads_of_the_environment_are_heeded_and_an_argument_beats_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    path = write_generator(tmp_path / "g.onnx")
    monkeypatch.setenv("GANTRT_THREADS", "two")
    with pytest.raises(UsageError, match="GANTRT_THREADS='two'"):
        open_engine(path, FP32, runtime)
    monkeypatch.setenv("GANTRT_THREADS", "1")
    engine: Any = open_engine(path, FP32, runtime)
    if runtime == "openvino":
        assert engine.threads() == 1
        assert open_engine(path, replace(FP32, threads=2), runtime).threads() == min(2, len(os.sched_getaffinity(0)))  # type: ignore[attr-defined]


def test_arrays_may_change_from_run_to_run(tmp_path: Path) -> None:
    engine = open_engine(write_generator(tmp_path / "g.onnx"), FP32)
    inputs = [noise(1, 3, 16, 24, seed=seed) for seed in range(3)]
    wanted = [run(engine, x) for x in inputs]
    y = np.empty_like(inputs[0])
    for i in (0, 1, 1, 2, 0):  # the same output with another input, and the other way round
        engine.run(inputs[i], y)
        np.testing.assert_array_equal(y, wanted[i])
        np.testing.assert_array_equal(run(engine, inputs[i]), wanted[i])


def test_versions_and_precision_say_what_runs(tmp_path: Path) -> None:
    path = write_pointwise(tmp_path / "p.onnx")
    engine = open_engine(path, FP32)
    assert (engine.name, engine.device, engine.precision) == ("openvino", "cpu", "fp32")
    assert set(engine.versions()) >= {"openvino", "cpu"}
    assert open_engine(path, Options(cache_dir="")).precision in ("fp32", "bf16", "fp16")  # the CPU decides


def test_fit_size() -> None:
    static = Manifest(input=InputSpec(3, 16, 24))
    dynamic = Manifest(input=InputSpec(3, 16, 24, multiple=8, dynamic=True))
    assert fit_size(static, None, 99, 1) == (16, 24)
    assert fit_size(dynamic, None, 17, 8) == (24, 8)
    assert fit_size(dynamic, (64, 32), 17, 8) == (64, 32)


def not_an_engine(path: Path) -> Path:
    path.write_bytes(b"this is no network, whatever its name says" * 10)
    return path


@pytest.mark.parametrize(
    ("options", "runtime", "error", "text"),
    [
        ({"device": "cuda"}, None, DeviceUnavailable, "gantrt export p.onnx -o p.plan"),
        ({"device": "cuda:1"}, None, DeviceUnavailable, "cuda:1"),
        ({"device": "tpu"}, None, UsageError, "there are auto, cpu, cuda"),
        ({}, "caffe", UsageError, "there are onnxruntime, openvino"),
        ({"size": (32, 32)}, None, EngineMismatch, "--size 32x32"),
        ({"precision": "int8"}, None, EngineMismatch, "--precision int8"),
        ({"precision": "int4"}, None, UsageError, "fp32"),
        ({"precision": "bf16"}, "onnxruntime", EngineMismatch, "export it"),
    ],
)
def test_refusals_say_what_to_do(
    tmp_path: Path, options: dict[str, Any], runtime: str | None, error: type[GantrtError], text: str
) -> None:
    path = write_pointwise(tmp_path / "p.onnx")
    with pytest.raises(error, match=text):
        open_engine(path, Options(cache_dir="", **options), runtime)


def test_a_file_that_is_no_engine_is_corrupt(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.onnx", not_an_engine(tmp_path / "bad.onnx"), not_an_engine(tmp_path / "notes.txt")):
        with pytest.raises(EngineCorrupt, match=path.name) as caught:
            open_engine(path, FP32)
        assert caught.value.exit_code == 3


def test_half_an_engine_is_corrupt(tmp_path: Path) -> None:
    whole = write_generator(tmp_path / "g.onnx").read_bytes()
    for cut in (len(whole) // 3, len(whole) - 7):
        (tmp_path / "half.onnx").write_bytes(whole[:cut])
        with pytest.raises((EngineCorrupt, EngineMismatch)):
            open_engine(tmp_path / "half.onnx", FP32)


def test_a_sound_network_that_a_runtime_lacks_kernels_for_is_a_mismatch(tmp_path: Path) -> None:
    path = write_bfloat16(tmp_path / "b.onnx")
    x = noise(1, 3, 16, 24)
    np.testing.assert_allclose(run(open_engine(path, Options(cache_dir="")), x), x, atol=2**-8)
    with pytest.raises(EngineMismatch, match="--runtime openvino"):
        open_engine(path, Options(), "onnxruntime")


def test_size_of_a_dynamic_engine_must_divide(tmp_path: Path) -> None:
    path = write_generator(tmp_path / "g.onnx", dynamic=True, multiple=4, size=(16, 16))
    with pytest.raises(UsageError, match="divisible by 4"):
        open_engine(path, Options(size=(30, 32), cache_dir=""))


def test_precision_the_cpu_lacks_is_refused_and_not_emulated(tmp_path: Path) -> None:
    from gantrt.engines.openvino import core

    path = write_pointwise(tmp_path / "p.onnx")
    options = Options(precision="bf16", cache_dir="")
    if "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        assert open_engine(path, options).precision == "bf16"
    else:
        with pytest.raises(DeviceUnavailable, match="no bf16"):
            open_engine(path, options)


def test_bf16_makes_the_picture_of_fp32_to_eight_bits(tmp_path: Path) -> None:
    from gantrt.engines.openvino import core

    if "BF16" not in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has no bf16")
    path, x = write_generator(tmp_path / "g.onnx", width=64, size=(64, 64)), noise(1, 3, 64, 64)
    half = open_engine(path, Options(cache_dir=""))
    assert half.precision == "bf16"  # the default
    difference = np.abs(run(half, x) - run(open_engine(path, FP32), x))
    assert 1e-5 < difference.max() < 2**-4  # not the same arithmetic, and hardly another picture
    assert difference.mean() < 2**-8


def test_missing_library_is_named_and_auto_says_once_what_it_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_pointwise(tmp_path / "p.onnx")
    monkeypatch.setattr(load_engine("openvino"), "missing", lambda: "openvino is not installed; pip install openvino")
    engines._say_once.cache_clear()
    with pytest.raises(DeviceUnavailable, match="pip install openvino"):
        open_engine(path, FP32, "openvino")
    with caplog.at_level(logging.INFO, "gantrt"):
        assert [open_engine(path, Options("auto")).name for _ in range(2)] == ["onnxruntime"] * 2
    assert [record.getMessage().count("running on the CPU with onnxruntime") for record in caplog.records] == [1]


def test_a_file_without_manifest_takes_its_range_from_the_caller(tmp_path: Path) -> None:
    bare = write_pointwise(tmp_path / "bare.onnx", manifest=False)
    assert open_engine(bare, FP32).manifest.range == (-1.0, 1.0)
    assert open_engine(bare, FP32, value_range=(0.0, 1.0)).manifest.range == (0.0, 1.0)
    with pytest.raises(EngineMismatch, match="its manifest says range"):
        open_engine(write_pointwise(tmp_path / "full.onnx"), FP32, value_range=(0.0, 1.0))


def test_what_is_called_a_plan_and_is_none_is_damaged(tmp_path: Path) -> None:
    with pytest.raises(EngineCorrupt, match="not a TensorRT plan"):
        open_engine(not_an_engine(tmp_path / "net.plan"), Options("auto"))
