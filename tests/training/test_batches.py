import pytest
import torch

from robust_flatness.config import ConfigError
from robust_flatness.training.batches import BatchPlan


def passes(plan, epoch, count=1):
    batches = plan.epoch(epoch)
    return [next(batches) for _ in range(count * plan.updates)]


def test_a_pass_has_every_example_once():
    plan = BatchPlan(22, 4, seed=0)
    batches = passes(plan, 0)
    assert [len(b) for b in batches] == [4, 4, 4, 4, 4, 2]
    assert sorted(torch.cat(batches).tolist()) == list(range(22))


def test_only_a_single_last_example_is_dropped():
    plan = BatchPlan(9, 4, seed=0)
    assert [len(b) for b in passes(plan, 0)] == [4, 4]
    with pytest.raises(ConfigError, match="batch_size"):
        BatchPlan(9, 1, seed=0)


def test_epochs_and_passes_differ_and_seeds_repeat():
    plan = BatchPlan(22, 4, seed=0)
    first, second = torch.cat(passes(plan, 0)), torch.cat(passes(plan, 1))
    assert not torch.equal(first, second)
    both = torch.cat(passes(plan, 0, count=2))
    assert torch.equal(both[:22], first)
    assert not torch.equal(both[22:], first)
    assert sorted(both[22:].tolist()) == list(range(22))
    assert torch.equal(first, torch.cat(passes(BatchPlan(22, 4, seed=0), 0)))
    assert not torch.equal(first, torch.cat(passes(BatchPlan(22, 4, seed=1), 0)))


def test_share_of_the_pool():
    plan = BatchPlan(20, 6, seed=0, pool=10, pool_fraction=0.5)
    batches = passes(plan, 0)
    labelled = [b[b < 20] for b in batches]
    pool = [b[b >= 20] for b in batches]
    assert [len(b) for b in labelled] == [3] * 6 + [2]
    assert [len(b) for b in pool] == [3] * 6 + [2]
    assert sorted(torch.cat(labelled).tolist()) == list(range(20))
    drawn = torch.cat(pool)
    # passes over the pool: after two of them, each of its examples was there twice
    assert sorted(drawn.tolist()) == sorted(2 * list(range(20, 30)))


def test_order_of_labelled_examples_does_not_depend_on_the_pool():
    without = torch.cat(passes(BatchPlan(20, 4, seed=3), 5))
    with_pool = torch.cat(passes(BatchPlan(20, 8, seed=3, pool=50, pool_fraction=0.5), 5))
    assert torch.equal(with_pool[with_pool < 20], without)


def test_a_batch_needs_labelled_examples():
    with pytest.raises(ConfigError, match="unlabeled_fraction"):
        BatchPlan(20, 4, seed=0, pool=5, pool_fraction=0.95)
