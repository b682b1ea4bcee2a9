"""Progress bars show the share that is done, and leave computations alone."""

import sys

import pytest
import torch
from torch import nn

from robust_flatness.attacks import PGD
from robust_flatness.flatness import average_flatness
from robust_flatness.runtime import progress
from robust_flatness.runtime.progress import show_progress, stage


@pytest.fixture
def updates(monkeypatch):
    """(description, share, positions) of each update on a terminal."""
    from rich.progress import Progress

    seen, original = [], Progress.update

    def update(self, task, **changes):
        seen.append((self.tasks[task].description, changes["completed"], changes["inner"]))
        original(self, task, **changes)

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(progress, "REDRAW", 0.0)
    monkeypatch.setattr(Progress, "update", update)
    return seen


def test_measures_show_samples_batches_and_steps_and_give_the_same(updates):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    x, y, attack = torch.rand(6, 1, 4, 4), torch.arange(6) % 3, PGD(0.1, 0.05, 3, restarts=2)

    def measure():
        return average_flatness(model, x, y, attack=attack, samples=3, batch_size=2).value

    expected = measure()
    assert not updates
    with show_progress(), stage("flatness"):
        assert measure() == expected
    shares = [share for _, share, _ in updates]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)
    assert any("sample 3 of 3" in inner and "step 2 of 4" in inner for *_, inner in updates)
