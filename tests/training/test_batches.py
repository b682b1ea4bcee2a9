import numpy as np
import pytest
import torch
from scipy import stats

from robust_flatness.config import ConfigError
from robust_flatness.data import Dataset
from robust_flatness.training.batches import BatchPlan, noisy_labels
from robust_flatness.training.pseudo_labels import pseudo_label

CLASSES = 5
COUNT = 20_000


def passes(plan, epoch, count=1):
    """Indices by batch."""
    batches = plan.epoch(epoch)
    return [next(batches) for _ in range(count * plan.updates)]


def test_a_pass_has_every_example_once_but_for_a_single_last_one():
    batches = passes(BatchPlan(22, 4, seed=0), 0)
    assert [len(b) for b in batches] == [4, 4, 4, 4, 4, 2]
    assert sorted(torch.cat(batches).tolist()) == list(range(22))
    assert [len(b) for b in passes(BatchPlan(9, 4, seed=0), 0)] == [4, 4]
    with pytest.raises(ConfigError, match="batch_size"):
        BatchPlan(1, 4, seed=0)


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


@pytest.mark.parametrize("fraction", [0.25, 0.5, 0.7])
def test_an_epoch_with_a_pool_has_the_batches_of_one_without(fraction):
    plan = BatchPlan(20, 6, seed=0, pool=10, pool_fraction=fraction)
    without = passes(BatchPlan(20, 6, seed=0), 0)
    batches = passes(plan, 0)
    assert [len(b) for b in batches] == [len(b) for b in without] == [6, 6, 6, 2]
    drawn = [int((b >= 20).sum()) for b in batches]
    assert drawn == [round(fraction * len(b)) for b in batches]
    labelled = torch.cat(batches)
    labelled = labelled[labelled < 20]
    assert len(set(labelled.tolist())) == len(labelled) == 20 - sum(drawn)


def test_the_pool_is_drawn_in_passes_and_every_labelled_example_comes_along():
    plan = BatchPlan(20, 6, seed=0, pool=10, pool_fraction=0.5)
    assert sorted(i for i in torch.cat(passes(plan, 0)).tolist() if i >= 20) == list(range(20, 30))
    seen = torch.cat([torch.cat(passes(plan, epoch)) for epoch in range(12)])
    # each is missed by an epoch with probability 1/2
    assert set(seen.tolist()) == set(range(30))


@pytest.mark.parametrize("rate", [0.3, 1.0])
def test_noise_changes_labels_with_probability_rate_to_all_classes_alike(rate):
    noisy = noisy_labels(torch.full((COUNT,), 2), rate, CLASSES, torch.Generator().manual_seed(0))
    expected = np.full(CLASSES, COUNT * rate / CLASSES)
    expected[2] += COUNT * (1 - rate)
    counts = torch.bincount(noisy, minlength=CLASSES)
    assert stats.chisquare(counts.tolist(), expected).pvalue > 0.001


def test_pseudo_labels_are_mostly_right_and_do_not_depend_on_held_out_splits(dataset, make_job):
    job = make_job(epochs=10, model={"width": 4}, augmentation={"crop": 1})
    names = ("x_test", "y_test", "x_early_stopping", "y_early_stopping")
    other = Dataset(dataset.arrays | {name: np.zeros_like(dataset.arrays[name]) for name in names})
    labels, again = (pseudo_label(data, job.model, job.training, seed=0) for data in (dataset, other))
    assert labels.dtype == torch.int64
    truth = torch.arange(12) % 3  # known to the test alone
    assert (labels == truth).sum() >= 9
    assert torch.equal(labels, again)
