"""Checkpoints made to harm: none runs code, none takes more memory than its own size is worth, none takes long."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pickle
import resource
import struct
import subprocess
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gantrt.cli import main
from gantrt.errors import EngineCorrupt, EngineMismatch, GantrtError
from gantrt_training.checkpoint import KEY, describe, load_run, load_state
from gantrt_training.family import load_family, make_config
from gantrt_training.foreign import read_networks
from safetensors.torch import save_file


class Calls:
    """Pickled, it is a call of any function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self._call


def harmful(mark: Path) -> dict[str, Any]:
    """What would leave a file at `mark` if it were run."""
    return {
        "os.system": Calls(os.system, f"touch {mark}"),
        "exec": Calls(exec, f"open({str(mark)!r}, 'w')"),
        "open": Calls(open, str(mark), "w"),
        "subprocess": Calls(subprocess.check_output, ["touch", str(mark)]),
        "within a dict": {"model": {"conv.weight": torch.zeros(2), "bias": Calls(os.system, f"touch {mark}")}},
        "torch.load itself": Calls(torch.load, str(mark)),
        "getattr": Calls(getattr, "text", "upper"),
    }


@pytest.mark.parametrize("how", ["pickle", "archive", "legacy"])
@pytest.mark.parametrize("name", harmful(Path("x")))
def test_no_checkpoint_runs_code(tmp_path: Path, name: str, how: str) -> None:
    mark, path = tmp_path / "mark", tmp_path / "net.pth"
    content = harmful(mark)[name]
    if how == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "archive")
    for read in (read_networks, load_state, load_run, lambda p: main(["inspect", str(p)])):
        with contextlib.suppress(GantrtError):
            read(path)
    assert main(["import", str(path), "-o", str(tmp_path / "run")]) == 3
    assert not mark.exists()


@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_a_program_of_torchscript_is_told_from_weights(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(torch.nn.Conv2d(3, 3, 1), torch.zeros(1, 3, 4, 4)), tmp_path / "net.pt")
    with pytest.raises(EngineCorrupt, match="is a program"):
        read_networks(tmp_path / "net.pt")


def test_a_pickle_may_not_change_the_functions_it_may_call(tmp_path: Path) -> None:
    """BUILD with a tuple sets attributes: given other defaults, the next file would be read by them."""
    code = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(N}X\x0c\x00\x00\x00__defaults__(tstb."
    (tmp_path / "net.pth").write_bytes(code)
    before = torch._utils._rebuild_tensor_v2.__defaults__
    with pytest.raises(EngineCorrupt):
        read_networks(tmp_path / "net.pth")
    assert torch._utils._rebuild_tensor_v2.__defaults__ == before


# Memory


def packed(path: Path) -> None:
    """A quarter of a gigabyte of zeros, in a quarter of a megabyte."""
    torch.save({"conv.weight": torch.zeros(1 << 26)}, path)
    small = path.with_suffix(".zip")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(small, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            with old.open(entry) as source, new.open(entry.filename, "w") as target:
                while block := source.read(1 << 24):
                    target.write(block)
    small.replace(path)


def repeated(path: Path) -> None:
    """One value, said to be a trillion."""
    torch.save({"conv.weight": torch.zeros(1).expand(1 << 20, 1 << 20)}, path)


def declared(path: Path) -> None:
    """A storage of the old format that says it has 2 ** 40 values."""
    torch.save({"conv.weight": torch.zeros(3)}, path, _use_new_zipfile_serialization=False)
    said, data = b"K\x03N", path.read_bytes()  # of the storage: 3 values, no view
    assert data.count(said) == 1
    path.write_bytes(
        data.replace(said, b"\x8a\x06\0\0\0\0\0\x01N").replace(struct.pack("<q", 3), struct.pack("<q", 1 << 40))
    )


def remembered(path: Path) -> None:
    """An object to be remembered under number 2 ** 31 - 1: C's reader of pickles makes a table of that size."""
    code = b"\x80\x02cno\nsuch\n)\x81r\xff\xff\xff\x7f."
    path.write_bytes(code)


def without_memory(path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(1 << 40, device="meta")}, path)


BOMBS: dict[str, Callable[[Path], None]] = {
    each.__name__: each for each in (repeated, declared, remembered, without_memory)
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_checkpoint_gets_no_more_memory_than_it_holds(tmp_path: Path, bomb: str) -> None:
    path = tmp_path / "net.pth"
    BOMBS[bomb](path)
    assert path.stat().st_size < 10_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(EngineCorrupt):
        read_networks(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


def test_an_archive_that_grows_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    packed(path)
    assert path.stat().st_size < 1 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(EngineCorrupt, match="an archive that grows when it is read"):
        read_networks(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


def test_entries_that_share_their_bytes_are_an_archive_that_grows(tmp_path: Path) -> None:
    """Each entry of the directory names the same bytes: no compression, and yet a thousand times the file."""
    path = tmp_path / "net.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", bytes(100_000))
        first = archive.infolist()[0]
        for i in range(200):
            twin = zipfile.ZipInfo(f"net/data/{i}")
            for field in ("header_offset", "CRC", "compress_size", "file_size"):
                setattr(twin, field, getattr(first, field))
            archive.filelist.append(twin)
        archive._didModify = True
    with pytest.raises(EngineCorrupt, match="grows when it is read"):
        read_networks(path)


def test_dicts_that_nest_without_end_are_left_after_a_moment(tmp_path: Path) -> None:
    content: Any = {"w": torch.zeros(1)}
    for _ in range(30):
        content = {"a": content, "b": content}
    torch.save(content, tmp_path / "net.pth")
    begin = time.monotonic()
    with pytest.raises(EngineCorrupt, match="nests without end"):
        read_networks(tmp_path / "net.pth")
    assert time.monotonic() - begin < 20


# Our own


@pytest.fixture
def ours(tmp_path: Path) -> Callable[..., Path]:
    """Our smallest checkpoint, with some keys of its config exchanged."""
    family = load_family("discogan")
    config = make_config(family, "paper", {"ngf": "1", "ndf": "1"})
    nets = torch.nn.ModuleDict({"g_ab": family.build(config)["g_ab"]})
    described = dataclasses.asdict(describe(family, "paper", config, nets))

    def write(**changes: Any) -> Path:
        text = json.dumps({**described, "config": described["config"] | changes})
        save_file(nets.state_dict(), tmp_path / "net.safetensors", {KEY: text})
        return tmp_path / "net.safetensors"

    return write


def test_the_smallest_of_ours_is_sound(ours: Callable[..., Path]) -> None:
    assert next(load_run(ours()).nets.parameters()).device.type == "cpu"


@pytest.mark.parametrize(
    "changes",
    [
        {"ngf": 60_000},
        {"ndf": 60_000},
        {"ngf": -1},
        {"ngf": 10**30},
        {"size": 1 << 16},
        {"bottleneck": 65_000},
        {"batch": 0},
    ],
    ids=str,
)
def test_what_a_config_asks_for_is_not_made_before_it_is_seen_to_be_there(
    ours: Callable[..., Path], changes: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    path, before, begin = ours(**changes), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with contextlib.suppress(EngineCorrupt, EngineMismatch):
        load_run(path)  # discriminators of another width are in no file of a single generator
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10
    assert time.monotonic() - begin < 10


@pytest.mark.parametrize(
    "setting", ["ngf=-1", "ngf=0", "n_blocks=1000000000", "size=0", "batch=-3", "beta1=2", "ngf=1e400"]
)
def test_a_setting_out_of_all_reason_is_a_line(
    tmp_path: Path, setting: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "cyclegan", "--data", str(tmp_path), "-o", str(tmp_path / "run"), "--set", setting]) == 2
    assert setting.partition("=")[0] in capsys.readouterr().err


def test_a_checkpoint_cut_anywhere_is_a_line(ours: Callable[..., Path], tmp_path: Path) -> None:
    torch.save({"net": torch.nn.Conv2d(3, 2, 1).state_dict()}, tmp_path / "archive.pth")
    torch.save({"net": torch.zeros(9)}, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    for path, read in (
        (ours(), load_run),
        (tmp_path / "archive.pth", read_networks),
        (tmp_path / "legacy.pth", read_networks),
    ):
        data = path.read_bytes()
        for end in range(0, len(data), max(1, len(data) // 60)):
            path.write_bytes(data[:end])
            with pytest.raises(GantrtError) as caught:
                read(path)
            assert "\n" not in str(caught.value)
