"""Losses against the formulas of the papers, schedules against tables of the reference implementations."""

from __future__ import annotations

import math

import pytest
import torch
from gantrt_training.losses import adversarial, feature_matching, l1, l2
from gantrt_training.schedules import constant_then_linear, linear_to_zero


@pytest.mark.parametrize("target", [0.0, 1.0])
def test_bce_is_the_mean_negative_log_likelihood(target: float) -> None:
    logits = torch.tensor([[[[-2.0, 0.0], [0.5, 3.0]]]])
    p = 1 / (1 + torch.exp(-logits.double()))
    wanted = -(target * p.log() + (1 - target) * (1 - p).log()).mean()
    assert adversarial(logits, target, "bce").item() == pytest.approx(wanted.item(), rel=1e-6)


def test_bce_of_an_undecided_judge_is_log_2() -> None:
    assert adversarial(torch.zeros(2, 1, 3, 3), 0, "bce").item() == pytest.approx(math.log(2), rel=1e-6)


def test_lsgan_is_the_mean_squared_distance_to_the_target() -> None:
    logits = torch.tensor([1.0, 3.0, -1.0])
    assert adversarial(logits, 1, "lsgan").item() == pytest.approx((0 + 4 + 4) / 3)
    assert adversarial(logits, 0, "lsgan").item() == pytest.approx((1 + 9 + 1) / 3)


def test_l1_and_l2_are_means() -> None:
    x, y = torch.tensor([1.0, -2.0]), torch.tensor([0.0, 1.0])
    assert l1(x, y).item() == 2.0
    assert l2(x, y).item() == 5.0


def test_feature_matching_sums_distances_of_batch_means() -> None:
    real = [torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0], [1.0]])]
    made = [torch.tensor([[0.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0], [5.0]])]
    assert feature_matching(real, made).item() == pytest.approx(((2 - 0) ** 2 + (3 - 1) ** 2) / 2 + (1 - 4) ** 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_losses_are_float32_whatever_comes_in(dtype: torch.dtype) -> None:
    x = torch.full((64, 64), 300.0, dtype=dtype)  # its square does not fit into float16
    assert adversarial(x, 1, "lsgan").item() == pytest.approx((x[0, 0].item() - 1) ** 2)
    assert l2(x, torch.zeros_like(x)).dtype == torch.float32
    assert feature_matching([x], [-x]).item() == pytest.approx((2 * x[0, 0].item()) ** 2)


def reference_factors(epochs: int, constant: int, stepped_first: bool) -> list[float]:
    """LambdaLR with the published rule, stepped at the start of each epoch (since 2020) or at its end."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    rule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda e: 1.0 - max(0, e + 1 - constant) / float(epochs - constant + 1)
    )
    factors = []
    for _ in range(epochs):
        optimizer.step()
        if stepped_first:
            rule.step()
        factors.append(optimizer.param_groups[0]["lr"])
        if not stepped_first:
            rule.step()
    return factors


@pytest.mark.parametrize("zero_last", [True, False])
@pytest.mark.parametrize(("epochs", "constant"), [(200, 100), (6, 3), (5, 5), (4, 0)])
def test_constant_then_linear_is_the_reference_rule(epochs: int, constant: int, zero_last: bool) -> None:
    ours = [constant_then_linear(epoch, constant, epochs, zero_last) for epoch in range(epochs)]
    assert ours == pytest.approx(reference_factors(epochs, constant, zero_last))
    assert (ours[-1] == 0.0) == zero_last


def test_fewer_epochs_than_constant_ones_never_decay() -> None:
    assert [constant_then_linear(epoch, 100, 99, True) for epoch in (0, 97, 98)] == [1.0, 1.0, 1.0]
    assert linear_to_zero(7, 5000, 5000) == 1.0


def test_linear_to_zero_is_a_straight_line() -> None:
    assert [linear_to_zero(epoch, 10, 200) for epoch in (0, 9, 10, 105, 199, 200)] == pytest.approx(
        [1, 1, 1, 0.5, 1 / 190, 0]
    )
