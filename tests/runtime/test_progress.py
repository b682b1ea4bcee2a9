"""Who watches sees every loop of every measure, and nobody else is disturbed."""

import torch
from torch import nn

from robust_flatness.attacks import PGD
from robust_flatness.flatness import average_flatness, hessian_eigenvalues, worst_flatness
from robust_flatness.runtime import progress
from robust_flatness.runtime.progress import Loop, share, stage, told, watched

ATTACK = PGD(0.1, 0.05, 3, restarts=2)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), torch.rand(6, 1, 4, 4), torch.arange(6) % 3


def seen_by(measure):
    """The loops that were under way at each moment of `measure`."""
    seen = []
    with watched(lambda loops: seen.append([*loops])):
        measure()
    return seen


def test_samples_restarts_steps_and_batches_are_told():
    model, x, y = network()
    average = seen_by(lambda: average_flatness(model, x, y, attack=ATTACK, samples=3, batch_size=2))
    samples = [loops[0].done for loops in average if loops[0].what == "sample"]
    assert samples == sorted(samples)
    assert {*samples} == {0, 1, 2, 3}
    inner = {loop.what: loop.total for loops in average if loops[0].what == "sample" for loop in loops}
    assert inner == {"sample": 3, "batch": 3, "step": 4}
    worst = seen_by(lambda: worst_flatness(model, x, y, attack=ATTACK, steps=4, restarts=2, batch_size=3))
    assert {"restart", "step", "batch"} <= {loop.what for loops in worst for loop in loops}
    products = seen_by(lambda: hessian_eigenvalues(model, x, y, k=2))
    assert products[-1][-1].done > 10


def test_what_is_done_grows_to_all_of_it():
    shares = []
    with watched(lambda loops: shares.append(share(loops))), stage("work"):
        for _ in told(range(3), "sample"):
            for _ in told("ab", "batch"):
                pass
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] == 1


def test_a_loop_that_is_left_leaves_nothing_behind():
    seen = []
    with watched(lambda loops: seen.append([*loops])):
        for _ in told(range(5), "left"):
            break
        for _ in told(range(1), "next"):
            pass
    assert seen[-1] == [Loop("next", 1, 1)]


def test_without_a_watcher_items_come_as_they_are():
    assert [*told([3, 1], "item")] == [3, 1]
    with stage("quiet"):
        progress.counted("item", 1)


def test_in_a_log_a_line_now_and_then(capsys, monkeypatch):
    with progress.shown(lines=True):
        for _ in told(range(3), "sample"):
            pass
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "LINE", 0.0)
    with progress.shown(lines=True), stage("flatness"):
        for _ in told(range(3), "sample"):
            pass
    lines = capsys.readouterr().err.splitlines()
    assert "flatness: 33 % (sample 2 of 3)" in lines[2]
    with progress.shown():
        for _ in told(range(3), "sample"):
            pass
    assert capsys.readouterr().err == ""
