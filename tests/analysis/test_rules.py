"""Each rule on tables where its claim is true, where it is false, and where they cannot tell."""

import math
from dataclasses import replace
from functools import partial

import made_up
import numpy as np
import pandas as pd
import pytest
from made_up import changed, noise, only, per_seed, shifted, without

from robust_flatness.analysis import claims
from robust_flatness.analysis.claim_tests.base import Finding, judged
from robust_flatness.analysis.evidence import Evidence
from robust_flatness.analysis.hinge import fit_hinge
from robust_flatness.analysis.resampling import Interval
from robust_flatness.folders import repository

LN_K = math.log(10)

FLAT, SMALL, LARGE = "avg_flatness_rloss", "worst_flatness_rloss_0.00075", "worst_flatness_rloss_0.005"
BEST, DOUBLE = "checkpoint == 'best'", "variant == 'at-scaled-2'"
ROBUST, REGULARISERS = f"family in {made_up.ROBUST}", f"family in {made_up.REGULARISERS}"
#: Changes that make a claim false, where nothing else is wrong with the tables.
FALSE = {
    "robust-overfitting": lambda t: shifted(t, "test", [-0.5] * 5),
    "overfitting-is-sharpening": lambda t: per_seed(t, "series", FLAT, [0] * 5),
    "early-stopping-is-flat": lambda t: changed(t, BEST, avg_flatness_rloss=partial(noise, scale=1)),
    "flat-is-robust": lambda t: changed(t, avg_flatness_rloss=noise),
    "variants-are-flat": lambda t: changed(t, ROBUST, avg_flatness_rloss=partial(noise, scale=0.2)),
    "regularisers-are-flat": lambda t: changed(t, REGULARISERS, avg_flatness_rloss=partial(noise, scale=0.2)),
    "worst-case-is-weaker": lambda t: changed(t, **{SMALL: lambda m: m[LARGE] * 0.15}),
    "gap-and-overfitting": lambda t: changed(t, train_rloss_pgd=lambda m: m["test_rloss_pgd"] - noise(m)),
    "train-flatness": lambda t: changed(t, train_avg_flatness_rloss=noise),
    "clean-flatness-does-not": lambda t: changed(t, avg_flatness_ce=lambda m: m[FLAT] / 3),
    "scale-invariant": lambda t: changed(t, DOUBLE, avg_flatness_rloss=lambda m: 2 * m[FLAT]),
    "rerr-kink": lambda t: changed(t, test_rerr_aa=lambda m: 40 + 8 * m["test_rloss_pgd"] + noise(m, 0.3)),
}

#: Changes after which a claim may be true as well as false.
INCONCLUSIVE = {
    "robust-overfitting": lambda t: shifted(t, "test", [0.5, -1.0, 0.2, -0.7, 0.2]),
    "overfitting-is-sharpening": lambda t: per_seed(t, "series", FLAT, [0.5, -0.4, 0.1, -0.3, 0.05]),
    "early-stopping-is-flat": lambda t: changed(t, BEST, avg_flatness_rloss=lambda m: 0.95 * noise(m, 3)),
    "flat-is-robust": lambda t: only(t, "family == 'awp'"),
    "variants-are-flat": lambda t: changed(t, ROBUST, avg_flatness_rloss=partial(noise, scale=2)),
    "regularisers-are-flat": lambda t: only(t, f"family not in {made_up.REGULARISERS[1:]}"),
    "rerr-kink": lambda t: changed(t, test_rerr_aa=lambda m: m["test_rerr_aa"] + noise(m, 8)),
}

#: Changes that leave the tables without a measure that a claim is judged by.
UNTESTABLE = {
    "robust-overfitting": lambda t: replace(
        t, examples=t.examples[t.examples["split"] == "test"], history=t.history.drop(columns="train_rloss")
    ),
    "overfitting-is-sharpening": lambda t: replace(t, series=t.series.drop(columns=FLAT)),
    "early-stopping-is-flat": lambda t: replace(only(t, f"not {BEST}"), series=t.series[:0]),
    "flat-is-robust": lambda t: without(t, FLAT),
    "variants-are-flat": lambda t: without(t, FLAT),
    "regularisers-are-flat": lambda t: only(t, "variant != 'at'"),
    "worst-case-is-weaker": lambda t: without(t, SMALL, LARGE),
    "gap-and-overfitting": lambda t: without(t, "train_rloss_pgd"),
    "train-flatness": lambda t: without(t, "train_avg_flatness_rloss"),
    "clean-flatness-does-not": lambda t: without(t, "avg_flatness_ce"),
    "scale-invariant": lambda t: only(t, f"not {DOUBLE}"),
    "rerr-kink": lambda t: without(t, "test_rerr_aa"),
}

OF = {claims.NOT_REPRODUCED: FALSE, claims.INCONCLUSIVE: INCONCLUSIVE, claims.NOT_TESTABLE: UNTESTABLE}
CASES = [(verdict, *case) for verdict, changes in OF.items() for case in changes.items()]


def test_the_made_up_experiment_reproduces_every_claim(spec, true):
    evidence = Evidence.of(true)
    for name, claim in spec.claims.items():
        found = claims.findings(claim, evidence, spec)
        assert claims.verdict(claim, found) == claims.REPRODUCED, (name, found)


def test_every_claim_has_a_false_and_an_untestable_case(spec):
    assert [*FALSE] == [*UNTESTABLE] == [*spec.claims]
    assert {*INCONCLUSIVE} < {*spec.claims}


@pytest.mark.parametrize(("verdict", "name", "change"), CASES)
def test_changed_tables_change_the_verdict(judge, true, verdict, name, change):
    found, findings = judge(name, change(true))
    assert found == verdict, findings
    if verdict == claims.NOT_TESTABLE:
        assert any("not measured" in finding.note or "were" in finding.note for finding in findings)


@pytest.mark.parametrize(
    ("interval", "p", "outcome", "of_none"),
    [
        ((0.1, 0.3), 0.01, "holds", "holds"),
        ((0.1, 0.6), 0.01, "holds", "does not hold"),
        ((0.1, 0.6), 0.2, "inconclusive", "inconclusive"),
        ((-0.1, 0.6), 0.2, "inconclusive", "inconclusive"),
        ((-0.1, 0.4), 0.2, "does not hold", "holds"),
        ((-0.4, -0.1), 0.01, "does not hold", "holds"),
        ((math.nan, math.nan), math.nan, "inconclusive", "inconclusive"),
    ],
)
def test_an_interval_that_excludes_the_reference_effect_does_not_hold(spec, interval, p, outcome, of_none):
    found = Finding(0.2, Interval(*interval), p=p, n=20)
    assert judged(found, "positive", 0.5, spec).outcome == outcome
    mirrored = replace(found, interval=Interval(-interval[1], -interval[0]))
    assert judged(mirrored, "negative", 0.5, spec).outcome == outcome
    assert judged(found, "none", 0.5, spec).outcome == of_none


def pair(seeds, noise):
    """Errors of 1,000 test examples at a quarter of epsilon: of `clean` on 500, of `sam` on `less` fewer for
    each seed, but on `noise` examples that `clean` classifies correctly."""
    rows, example = [], np.arange(1000)
    for seed, less in enumerate(seeds):
        clean, sam = example < 500, (noise <= example) & (example < 500 - less) | (example >= 1000 - noise)
        for variant, errors in (("clean", clean), ("sam", sam)):
            rows.append(made_up.of_examples(variant, seed, "last", "test_eps_0.25", np.ones(1000), errors))
    return pd.concat(rows, ignore_index=True)


@pytest.mark.parametrize(
    ("seeds", "noise", "verdict", "over"),
    [
        ([50], 50, claims.REPRODUCED, "examples"),
        ([10], 200, claims.INCONCLUSIVE, "examples"),
        ([0], 20, claims.NOT_REPRODUCED, "examples"),
        ([-100], 200, claims.NOT_REPRODUCED, "examples"),
        ([50, 60, 70], 20, claims.REPRODUCED, "seeds and examples"),
        ([-100, 50, 100], 20, claims.INCONCLUSIVE, "seeds and examples"),
        ([0, 1, -1], 5, claims.NOT_REPRODUCED, "seeds and examples"),
    ],
)
def test_sam_is_robust_by_the_examples_of_both_trainings(true, seeds, noise, verdict, over):
    later = claims.load_claims(repository() / "config" / "later-claims.yaml")
    claim = later.claims["sam-is-robust"]
    examples = pd.concat([true.examples, pair(seeds, noise)], ignore_index=True)
    found = claims.findings(claim, Evidence.of(replace(true, examples=examples)), later)
    assert claims.verdict(claim, found) == verdict, found
    assert found[0].value == pytest.approx(-np.mean(seeds) / 10)
    assert (found[0].over, found[0].reference) == (over, 2)
    without = claims.findings(claim, Evidence.of(true), later)
    assert claims.verdict(claim, without) == claims.NOT_TESTABLE


NO_KINK = {
    "root": lambda x: 40 + 20 * np.sqrt(x - 1),
    "logarithm": lambda x: 40 + 25 * np.log(x),
    "parabola": lambda x: 80 - 4 * (x - 4.5) ** 2,
    "saturating": lambda x: 40 + 40 * (1 - np.exp(-(x - 1))),
    "elsewhere": lambda x: made_up.hinge(x, 3.3),
    "blunt": lambda x: made_up.hinge(x, LN_K, below=15, above=11),
    "line": lambda x: 40 + 8 * x,
    "upwards": lambda x: made_up.hinge(x, LN_K, below=1, above=15),
}


@pytest.mark.parametrize("name", NO_KINK)
def test_only_a_sharp_bend_at_the_right_place_is_a_kink(judge, true, name):
    x = np.linspace(1.1, 4.4, len(true.models))[true.models["test_rloss_pgd"].rank().astype(int) - 1]
    y = NO_KINK[name](x) + 0.2 * noise(true.models)
    verdict, found = judge("rerr-kink", changed(true, test_rloss_pgd=x, test_rerr_aa=y))
    assert verdict == claims.NOT_REPRODUCED, found


def test_a_hinge_is_found_where_it_is():
    rng = np.random.default_rng(0)
    x = rng.uniform(1, 4, 200)
    y = made_up.hinge(x, 2.5) + rng.normal(0, 0.1, 200)
    at, ratio = fit_hinge(x, y, np.ones((1, 200)))
    assert at[0] == pytest.approx(2.5, abs=0.05)
    assert ratio[0] == pytest.approx(1 / 15, abs=0.02)
    # Counting a point twice is the same as having it twice.
    counts = rng.integers(1, 3, (1, 200))
    twice = fit_hinge(np.repeat(x, counts[0]), np.repeat(y, counts[0]), np.ones((1, counts.sum())))
    assert fit_hinge(x, y, counts)[1][0] == pytest.approx(twice[1][0], abs=0.03)
