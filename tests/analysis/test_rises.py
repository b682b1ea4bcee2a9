"""Coverage and power of intervals over crossed seeds and examples, on simulated data."""

import numpy as np
import pytest
from scipy import stats

from robust_flatness.analysis.rises import Components, mean_interval, power


def simulated(rng, components, seeds, examples, mean=0.0):
    scales = np.sqrt(components)
    effects = rng.normal(0, scales[0], (seeds, 1)) + rng.normal(0, scales[1], (1, examples))
    return mean + effects + rng.normal(0, scales[2], (seeds, examples))


CASES = [
    (5, 100, Components(0.09, 0.25, 1.0)),
    (5, 100, Components(0.0025, 4.0, 1.0)),
    (3, 100, Components(0.09, 0.25, 1.0)),
    (10, 200, Components(0.01, 0.1, 4.0)),
    (10, 200, Components(0.0, 0.0, 1.0)),
]


@pytest.mark.parametrize(("seeds", "examples", "components"), CASES)
def test_intervals_of_no_effect_cover_zero_at_their_level(seeds, examples, components):
    """At 95 %, within three standard deviations of 2000 intervals; more where variances are 0, since their
    estimates are not negative."""
    rng = np.random.default_rng(0)
    intervals = [mean_interval(simulated(rng, components, seeds, examples))[0] for _ in range(2000)]
    covered = np.mean([interval.low <= 0 <= interval.high for interval in intervals])
    assert 0.925 <= covered <= (0.975 if components.seeds else 0.995)


def test_components_are_those_simulated():
    components = Components(0.5, 2.0, 1.0)
    found = Components.of(simulated(np.random.default_rng(0), components, 300, 400))
    assert found == pytest.approx(components, rel=0.2)


def test_one_example_leaves_students_interval_over_seeds():
    values = np.random.default_rng(0).normal(1, 2, 5)
    interval, p = mean_interval(values[:, None])
    expected = stats.ttest_1samp(values, 0)
    assert interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert p == pytest.approx(expected.pvalue)
    assert np.isnan(mean_interval(values[:1, None])[0].width)


def test_values_that_are_equal_in_all_seeds_leave_the_paired_interval_over_examples():
    of_examples = np.random.default_rng(0).normal(0.3, 1, 200)
    interval, _ = mean_interval(np.tile(of_examples, (5, 1)))
    expected = stats.ttest_1samp(of_examples, 0).confidence_interval(0.95)
    assert interval == pytest.approx(tuple(expected))


@pytest.mark.parametrize(("seeds", "examples", "components"), CASES[:4])
def test_power_is_the_share_of_simulated_intervals_above_zero(seeds, examples, components):
    rng, effect = np.random.default_rng(1), 0.3
    intervals = [mean_interval(simulated(rng, components, seeds, examples, effect))[0] for _ in range(2000)]
    share = np.mean([interval.low > 0 for interval in intervals])
    assert power(components, effect, seeds, examples) == pytest.approx(share, abs=0.08)
