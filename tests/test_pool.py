"""The replay pool: what it answers, how often, and that a resumed one goes on as if never stopped."""

from __future__ import annotations

import io
import random

import pytest
import torch
from gantrt_training.pool import ImagePool
from torch import Tensor


def numbered(first: int, count: int) -> Tensor:
    """Pictures (count, 1, 2, 2), each filled with its own number."""
    return torch.arange(first, first + count, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()


def numbers(images: Tensor) -> list[int]:
    return [int(image.mean()) for image in images]


def test_size_zero_passes_through() -> None:
    images = numbered(0, 3).requires_grad_()
    answer = ImagePool(0).query(images)
    assert torch.equal(answer, images)
    assert not answer.requires_grad


def test_a_filling_pool_returns_what_it_is_given() -> None:
    pool = ImagePool(5)
    assert numbers(pool.query(numbered(0, 3))) == [0, 1, 2]
    assert numbers(pool.query(numbered(3, 2))) == [3, 4]
    assert len(pool) == 5


def test_a_full_pool_answers_half_of_the_time_with_an_old_picture() -> None:
    pool, rounds = ImagePool(50), 4000
    pool.query(numbered(0, 50))
    answers = [numbers(pool.query(numbered(50 + i, 1)))[0] for i in range(rounds)]
    old = sum(answer != 50 + i for i, answer in enumerate(answers))
    assert abs(old / rounds - 0.5) < 0.03  # 4 standard deviations
    assert len(pool) == 50
    assert len(set(answers)) == rounds  # each picture leaves once: given back at once, or stored and given back later


def test_the_rule_is_that_of_the_slow_twin() -> None:
    """The published rule, with the same coins: keep the new picture in the place of the old one it returns."""
    pool, coins = ImagePool(4, seed=7), torch.Generator().manual_seed(7)
    stored: list[int] = []
    for step in range(200):
        if len(stored) < 4:
            stored.append(step)
            wanted = step
        elif int(torch.randint(2, (), generator=coins)):
            slot = int(torch.randint(4, (), generator=coins))
            wanted, stored[slot] = stored[slot], step
        else:
            wanted = step
        assert numbers(pool.query(numbered(step, 1))) == [wanted]


def test_query_leaves_the_caller_s_pictures_alone_and_keeps_none_of_their_memory() -> None:
    pool = ImagePool(2)
    images = numbered(0, 2)
    answer = pool.query(images)
    answer.zero_()
    images.fill_(9)
    assert sorted({numbers(pool.query(numbered(10 + i, 1)))[0] for i in range(20)} & {0, 1, 9}) == [0, 1]


def test_single_pictures_may_differ_in_size_and_batches_may_not() -> None:
    pool = ImagePool(2)
    shapes = {tuple(pool.query(torch.zeros(1, 3, 4 + 2 * (n % 3), 8)).shape) for n in range(60)}
    assert shapes == {(1, 3, height, 8) for height in (4, 6, 8)}
    full, query = ImagePool(1), torch.zeros(2, 3, 4, 8)
    full.query(query[:1])
    with pytest.raises(ValueError, match="several sizes need batch=1"):
        list(map(full.query, (query.new_zeros(2, 3, 20 + n, 8) for n in range(60))))


def test_query_keeps_dtype_and_memory_format() -> None:
    pool = ImagePool(2)
    for seed in range(3):
        images = torch.full((2, 3, 4, 4), seed, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
        answer = pool.query(images)
        assert answer.dtype == torch.bfloat16
        assert answer.is_contiguous(memory_format=torch.channels_last)


def test_a_restored_pool_goes_on_bit_for_bit() -> None:
    pool = ImagePool(8, seed=3)
    for step in range(20):
        pool.query(numbered(2 * step, 2))
    file = io.BytesIO()
    torch.save(pool.state_dict(), file)
    file.seek(0)
    resumed = ImagePool(8, seed=random.Random(0).randrange(100))
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for step in range(20, 60):
        assert torch.equal(pool.query(numbered(2 * step, 2)), resumed.query(numbered(2 * step, 2)))


def test_a_saved_state_does_not_change_afterwards() -> None:
    pool = ImagePool(1)
    pool.query(numbered(1, 1))
    state = pool.state_dict()
    for step in range(2, 12):
        pool.query(numbered(step, 1))
    assert numbers(torch.stack(state["images"]).flatten(0, 1)) == [1]


def test_a_larger_state_is_refused() -> None:
    pool = ImagePool(3)
    pool.query(numbered(0, 3))
    with pytest.raises(ValueError, match="3 pictures were saved, this pool holds 2"):
        ImagePool(2).load_state_dict(pool.state_dict())
    with pytest.raises(ValueError, match="must not be negative"):
        ImagePool(-1)
