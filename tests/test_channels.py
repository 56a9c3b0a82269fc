"""Any number of channels and 16 bits, from files through a training and an export to what an engine makes of arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from gantrt.cli import main
from gantrt.engine_file import read_manifest
from gantrt.engines import Options, open_engine, output_like
from gantrt.errors import EngineMismatch
from gantrt.manifest import in_words
from gantrt.translator import load
from gantrt_training.checkpoint import load_run
from gantrt_training.data import Data, to_float
from gantrt_training.recipe import Recipe
from gantrt_training.samples import as_seen
from gantrt_training.step import upload
from tiny_pictures import picture, write

pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")
RUNTIMES = ("onnxruntime", "openvino")
TINY = ["ngf=4", "ndf=4", "d_layers=1", "samples=2", "batch=2", "lambda_identity=0", "n_blocks=1"]


def bands(seed: int, channels: int, height: int = 20, width: int = 28) -> np.ndarray:
    """A smooth picture of so many channels, 12 bits deep."""
    coarse = np.random.default_rng(seed).integers(0, 4096, (4, 5, channels)).astype(np.float32)
    layers = [cv2.resize(coarse[..., n], (width, height), interpolation=cv2.INTER_LINEAR) for n in range(channels)]
    return np.stack(layers, axis=2).astype(np.uint16)


def train(family: str, data: Path, run: Path, *keys: str) -> int:
    return main(["train", family, "--data", str(data), "-o", str(run), "--steps", "2", "--set", *TINY, *keys, "-q"])


def made_by(runtime: str, engine: Path, x: np.ndarray) -> np.ndarray:
    opened = open_engine(engine, Options(threads=1, precision="fp32"), runtime)
    y = output_like(opened.manifest, x)
    opened.run(x, y)
    opened.close()
    return y


def test_seven_bands_of_12_bits_become_four_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part, count in (("train", 3), ("test", 2)):
        for n in range(count):
            for side, channels in (("A", 7), ("B", 4)):
                folder = tmp_path / "data" / f"{part}{side}"
                folder.mkdir(parents=True, exist_ok=True)
                np.save(folder / f"{n}.npy", bands(n, channels))
    keys = ["size=16x24", "channels_a=7", "channels_b=4", "bits=16", "white=4095"]
    run, engine = tmp_path / "run", tmp_path / "engine.onnx"
    assert train("cyclegan", tmp_path / "data", run, *keys) == 0
    sheet = cv2.imread(str(run / "samples" / "step_0000002.png"))
    assert sheet.shape == (
        6 * 18 - 2,
        2 * (7 * 24 + 2) - 2,
        3,
    )  # seven greys beside each other; four: colours and a grey

    assert main(["export", str(run), "-o", str(engine), "-q"]) == 0
    manifest = read_manifest(engine)
    assert manifest is not None
    assert (manifest.input.channels, manifest.made_channels, manifest.color) == (7, 4, "none")
    assert (manifest.input.height, manifest.input.width) == (16, 24)

    assert main(["inspect", str(engine)]) == 0
    assert "7 → 4 channels in [-1, 1], 16x24" in capsys.readouterr().out

    recipe = Recipe.load(run / "recipe.json")
    side = Data(Path(recipe.data), (7, 4), recipe.preparation(), paired=False).test_a
    assert side.whole(0).dtype == np.uint16
    x = to_float(torch.from_numpy(side.whole(0)[None]))
    means = bands(0, 7).mean((0, 1)) / 4095 * 2 - 1  # 4095 is white
    np.testing.assert_allclose(x.mean((0, 2, 3)).numpy(), means, atol=0.02)
    with torch.no_grad():
        wanted = load_run(run).nets["g_ab"](x).numpy()
    for runtime in RUNTIMES:
        np.testing.assert_allclose(made_by(runtime, engine, x.numpy()), wanted, atol=2e-4)
    with pytest.raises(EngineMismatch, match=r"takes 7 channels and makes 4; frames have 1 or 3.*run it on arrays"):
        load(engine)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_network_that_colours_grey_pictures_translates_frames(tmp_path: Path, runtime: str) -> None:
    for n in range(3):
        rgb = picture(n, 40, 72)
        write(tmp_path / "data" / "trainA" / f"{n}.png", rgb)
        write(tmp_path / "data" / "trainB" / f"{n}.png", rgb)
    run, engine = tmp_path / "run", tmp_path / "engine.onnx"
    assert (
        main(
            f"train pix2pix --data {tmp_path}/data -o {run} --steps 2 -q "
            "--set size=32x64 channels_a=1 ngf=4 ndf=4 d_layers=1 samples=1 norm=instance".split()
        )
        == 0
    )
    assert main(["export", str(run), "-o", str(engine), "-q"]) == 0
    frame = picture(9, 50, 60)
    with load(engine, runtime=runtime, precision="fp32") as translate:
        made = translate(frame)
        assert made.shape == frame.shape
        assert len({made[..., n].tobytes() for n in range(3)}) == 3  # colours, not three times the same grey
    grey = np.full((32, 64, 3), 100, np.uint8)
    x = np.full((1, 1, 32, 64), 100 / 127.5 - 1, np.float32)
    with load(engine, runtime=runtime, precision="fp32") as translate:
        wanted = (made_by(runtime, engine, x)[0].transpose(1, 2, 0) + 1) * 127.5
        assert np.abs(translate(grey) - wanted).max() <= 0.6


def test_16_bits_reach_the_network(tmp_path: Path) -> None:
    deep = torch.from_numpy(np.array([[[[0], [1], [32768], [65535]]]], np.uint16))
    values = upload(deep, torch.device("cpu")).flatten().tolist()
    assert values == pytest.approx([-1, -1 + 1 / 32767.5, 32768 / 32767.5 - 1, 1], abs=1e-7)


def test_what_an_engine_takes_and_makes_is_said_in_words() -> None:
    said = [(1, 1, "gray"), (3, 3, "bgr"), (1, 3, "gray"), (3, 1, "rgb"), (7, 4, "none"), (4, 4, "none")]
    assert [in_words(*each) for each in said] == [
        *("gray", "bgr", "gray → rgb", "rgb → gray"),
        *("7 → 4 channels", "4 channels"),
    ]


@pytest.mark.parametrize(("channels", "width"), [(1, 5), (2, 10), (3, 5), (4, 10), (6, 30)])
def test_every_channel_can_be_seen(channels: int, width: int) -> None:
    given = np.random.default_rng(0).integers(0, 256, (2, 4, 5, channels), np.uint8)
    seen: Any = as_seen(given)
    assert seen.shape == (2, 4, width, 3)
    if channels in (3, 4):
        np.testing.assert_array_equal(seen[:, :, :5], given[..., :3])
    last = seen[:, :, -5:]
    np.testing.assert_array_equal(last[..., 2], given[..., -1])


@pytest.mark.parametrize("family", ["cyclegan", "ugatit", "discogan"])
def test_every_family_trains_and_exports_rectangles(family: str, tmp_path: Path) -> None:
    for side in "AB":
        for n in range(3):
            write(tmp_path / "data" / f"train{side}" / f"{n}.png", picture(n, 40, 72))
    small = {
        "cyclegan": ["size=16x24", "n_blocks=1", "d_layers=1"],
        "ugatit": ["size=32x48", "n_blocks=1"],  # the full one
        "discogan": ["size=16x32", "bottleneck=8"],
    }[family]
    run, engine = tmp_path / "run", tmp_path / "engine.onnx"
    words = ["train", family, "--data", str(tmp_path / "data"), "-o", str(run), "--steps", "2", "-q", "--set"]
    assert main([*words, "ngf=4", "ndf=4", "samples=1", "batch=2", *small]) == 0
    height, width = (int(side) for side in small[0].partition("=")[2].split("x"))
    assert main(["export", str(run), "-o", str(engine), "-q"]) == 0
    manifest = read_manifest(engine)
    assert manifest is not None
    assert (manifest.input.height, manifest.input.width) == (height, width)
    x = np.random.default_rng(0).uniform(-1, 1, (1, 3, height, width)).astype(np.float32)
    assert made_by("openvino", engine, x).shape == x.shape
