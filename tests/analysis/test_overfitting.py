"""The rule of robust-overfitting on curves with the test errors of five public trainings."""

from dataclasses import replace

import made_up
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from robust_flatness.analysis import claims
from robust_flatness.analysis.evidence import Evidence

#: RErr in per cent before the first drop, just after it and at the end: logs of Rice, Wong and Kolter (2020),
#: means of epochs 90 to 99, 101 to 105 and 190 to 199, on 10,000 test images.
LOGS = {
    "preactresnet-18": (53.5, 47.1, 53.9),
    "wide-resnet-factor-10": (51.0, 44.4, 51.2),
    "cifar-100": (77.4, 72.5, 78.5),
    "cifar-10-l2": (36.1, 28.9, 31.1),
    "wide-resnet-factor-1": (57.9, 52.2, 51.2),
}
EPOCHS, DROP, IMAGES, SEEDS = 200, 100, 10_000, 5
DIFFICULTY = np.random.default_rng(0).normal(size=IMAGES)
SNAPSHOTS = np.array([*range(59, 100, 20), *range(100, 105), *range(109, 200, 10)])


def training(log, rng):
    """Test errors and hardness [snapshots, images] of one training: the log's means at the snapshots, with
    noise of epochs (larger before the drop) and of images, which are similarly hard at all epochs."""
    before, after, end = log
    mean = np.where(SNAPSHOTS < DROP, before, np.interp(SNAPSHOTS, [104, 195], [after, end]))
    mean = mean + rng.normal(0, np.where(SNAPSHOTS < DROP, 0.6, 0.15))
    training_part, epoch_part = rng.normal(size=IMAGES), rng.normal(size=(len(SNAPSHOTS), IMAGES))
    hardness = np.sqrt(0.75) * DIFFICULTY + np.sqrt(0.15) * training_part + np.sqrt(0.1) * epoch_part
    return hardness > stats.norm.isf(mean / 100)[:, None], hardness


def tables(log, rng):
    """Tables with these trainings as the baseline. The early-stopped epoch is chosen on one half of the
    images, and the other half is kept. Losses follow the errors; training errors and losses fall."""
    frames, chosen, judged = [], slice(0, IMAGES // 2), slice(IMAGES // 2, None)
    for seed in range(SEEDS):
        errors, hardness = training(log, rng)
        best = errors[:, chosen].mean(axis=1).argmin()
        for name, row in (("best", best), ("last", len(SNAPSHOTS) - 1)):
            level = stats.norm.isf(errors[row].mean())
            loss = np.logaddexp(0, 2 * (hardness[row, judged] - level))
            frames.append(made_up.of_examples("at", seed, name, "test", loss, errors[row, judged]))
        for epoch, rate in ((DROP - 1, 0.45), (EPOCHS - 1, 0.15)):
            wrong = rng.uniform(size=1000) < rate
            values = 0.2 + wrong, wrong
            frames.append(made_up.of_examples("at", seed, f"epoch-{epoch:03d}", "train", *values))
    history = made_up.schedule("at", 0, np.arange(EPOCHS), EPOCHS, DROP)
    return replace(made_up.experiment(), history=history, examples=pd.concat(frames, ignore_index=True))


@pytest.mark.parametrize("name", LOGS)
def test_four_trainings_overfit_and_the_narrow_network_does_not(name):
    spec = claims.load_claims()
    claim = spec.claims["robust-overfitting"]
    found = claims.findings(claim, Evidence.of(tables(LOGS[name], np.random.default_rng(1))), spec)
    expected = claims.NOT_REPRODUCED if name == "wide-resnet-factor-1" else claims.REPRODUCED
    assert claims.verdict(claim, found) == expected, found
    assert found[1].statistic.endswith("last minus early-stopped checkpoint")
