"""Compiled models on disk: whole, checked, bounded, and shared by processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gantrt import model_cache
from gantrt.errors import UsageError
from gantrt.model_cache import ModelCache, digest, key_of

GB = 1 << 30


def names(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.model")}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path, GB)
    model = np.random.default_rng(0).bytes(10_000_001)  # more than two chunks, and no multiple of one
    assert cache.read("k") is None
    cache.write("k", model)
    kept = cache.read("k")
    assert kept is not None
    assert kept.model.tobytes() == model
    kept.release()
    assert kept.model.tobytes() == model
    kept.model[0] ^= 1  # private: the file stays as it is
    again = cache.read("k")
    assert again is not None
    assert again.model.tobytes() == model


def test_every_single_damaged_byte_is_noticed_and_the_file_removed(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path, GB)
    cache.write("k", b"a model" * 100)
    path = tmp_path / "k.model"
    sound = path.read_bytes()
    for place in (0, 20, 4095, 4096, len(sound) - 1):
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 64]) + sound[place + 1 :])
        assert cache.read("k") is None, place
        assert not path.exists()
    for cut in (0, 100, 4096, len(sound) - 1):
        path.write_bytes(sound[:cut])
        assert cache.read("k") is None, cut


def test_what_another_user_could_have_written_is_not_run_but_replaced(tmp_path: Path, caplog) -> None:
    cache, path = ModelCache(tmp_path, GB), tmp_path / "k.model"
    cache.write("k", b"a model")
    for mode in (0o666, 0o620, 0o602):
        path.chmod(mode)
        with caplog.at_level("INFO", "gantrt"):
            assert cache.read("k") is None
        assert f"others may write it: mode {mode:o}" in caplog.text
        assert path.exists()  # not ours to remove
    cache.write("k", b"another")
    kept = cache.read("k")
    assert kept is not None
    assert kept.model.tobytes() == b"another"


def test_a_model_of_another_user_is_not_run_but_roots_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ModelCache(tmp_path, GB)
    cache.write("k", b"a model")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    owned_by_root = (tmp_path / "k.model").stat().st_uid == 0
    assert (cache.read("k") is not None) == owned_by_root
    if owned_by_root:
        os.chown(tmp_path / "k.model", 1234, -1)
        assert cache.read("k") is None


def test_least_recently_used_go_first_and_the_limit_is_kept(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path, 3 * (4096 + 1000))
    for i, key in enumerate("abc"):
        cache.write(key, bytes(1000))
        os.utime(tmp_path / f"{key}.model", (i, i))
    cache.read("a")  # used now
    cache.write("d", bytes(1000))
    assert names(tmp_path) == {"a", "c", "d"}
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 3 * (4096 + 1000)


def test_a_model_over_the_limit_is_not_kept_and_drives_none_out(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path, 10_000)
    cache.write("small", bytes(1000))
    cache.write("large", bytes(10_000))
    assert names(tmp_path) == {"small"}


def test_what_a_killed_process_left_is_removed_a_day_later(tmp_path: Path) -> None:
    old, young = tmp_path / "x.part", tmp_path / "y.part"
    old.touch()
    young.touch()
    os.utime(old, (1, 1))
    ModelCache(tmp_path, GB).write("k", b"m")
    assert not old.exists()
    assert young.exists()


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path / "gone", GB)
    cache.write("k", b"m")
    assert cache.read("k") is None


def test_key_depends_on_content_and_on_everything_else_but_not_on_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = tmp_path / "a.onnx", tmp_path / "b.onnx"
    a.write_bytes(b"x" * 100)
    b.write_bytes(b"x" * 100)
    key = key_of(a, {"version": 1})
    assert key == key_of(b, {"version": 1})
    assert key != key_of(a, {"version": 2})
    b.write_bytes(b"x" * 99 + b"y")
    assert key != key_of(b, {"version": 1})
    monkeypatch.setattr(model_cache, "_code", lambda: "changed")
    assert key != key_of(a, {"version": 1})


def test_digest_sees_every_byte_and_the_length() -> None:
    data = np.zeros(9 << 20, np.uint8)
    plain = digest(data)
    assert plain != digest(data[:-1])
    for place in (0, (4 << 20) - 1, 4 << 20, len(data) - 1):
        data[place] = 1
        assert digest(data) != plain, place
        data[place] = 0
    assert digest(data[:0])


def test_limit_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANTRT_CACHE_GB", "0.00001")
    cache = ModelCache.open(str(tmp_path))
    assert cache is not None
    cache.write("k", bytes(20_000))
    assert not names(tmp_path)
    for wrong in ("-1", "lots", "nan"):
        monkeypatch.setenv("GANTRT_CACHE_GB", wrong)
        with pytest.raises(UsageError, match="GANTRT_CACHE_GB"):
            ModelCache.open(str(tmp_path))
    assert ModelCache.open("") is None


def test_processes_that_write_read_and_prune_at_once_do_not_harm_each_other(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib\n"
        "from gantrt.model_cache import ModelCache\n"
        "cache = ModelCache(pathlib.Path(sys.argv[1]), 4 * 104_096)\n"
        "for i in range(60):\n"
        "    key = i % 7\n"
        "    kept = cache.read(str(key))\n"
        "    assert kept is None or kept.model.tobytes() == bytes([key]) * 100_000\n"
        "    cache.write(str(key), bytes([key]) * 100_000)\n"
    )
    words = [sys.executable, "-c", script, str(tmp_path)]
    running = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in running:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
        assert "damaged" not in said
    assert not list(tmp_path.glob("*.part"))
    assert 0 < len(names(tmp_path)) <= 5
