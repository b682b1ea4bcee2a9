import torch
from scipy import stats

from robust_flatness.training.batches import noisy_labels

CLASSES = 5
COUNT = 20_000


def test_rate_and_uniformity():
    """A label changes with probability tau (1 - 1/K), to each other class alike."""
    labels = torch.full((COUNT,), 2)
    noisy = noisy_labels(labels, 0.3, CLASSES, torch.Generator().manual_seed(0))
    counts = torch.bincount(noisy, minlength=CLASSES)
    changed = COUNT - counts[2].item()
    assert stats.binomtest(changed, COUNT, 0.3 * (1 - 1 / CLASSES)).pvalue > 0.001
    others = [counts[k].item() for k in range(CLASSES) if k != 2]
    assert stats.chisquare(others).pvalue > 0.001


def test_noise_does_not_depend_on_the_label_or_its_neighbours():
    labels = torch.arange(COUNT) % CLASSES
    noisy = noisy_labels(labels, 0.5, CLASSES, torch.Generator().manual_seed(1))
    changed = noisy != labels
    by_class = [changed[labels == k].sum().item() for k in range(CLASSES)]
    assert stats.chisquare(by_class).pvalue > 0.001
    pairs = (changed[1:] & changed[:-1]).sum().item()
    assert stats.binomtest(pairs, COUNT - 1, 0.4**2).pvalue > 0.001


def test_no_noise_changes_nothing_and_full_noise_is_uniform():
    labels = torch.zeros(COUNT, dtype=torch.int64)
    generator = torch.Generator().manual_seed(2)
    assert torch.equal(noisy_labels(labels, 0.0, CLASSES, generator), labels)
    counts = torch.bincount(noisy_labels(labels, 1.0, CLASSES, generator), minlength=CLASSES)
    assert stats.chisquare(counts.tolist()).pvalue > 0.001
