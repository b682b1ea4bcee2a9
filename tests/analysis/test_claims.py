"""The claims on the printed numbers, and that each rule can fail."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from robust_flatness import tables as results
from robust_flatness.analysis import claims
from robust_flatness.analysis.claim_tests import FAILS, HOLDS, KINDS, UNTESTABLE
from robust_flatness.analysis.correlation import coefficient
from robust_flatness.analysis.evidence import Evidence, early_stopping_pairs, kink


@pytest.fixture(scope="module")
def published():
    return results.read_published()


@pytest.fixture(scope="module")
def judged(published):
    return {claim.name: claim for claim in claims.judge(published)}


@pytest.fixture(scope="module")
def rules():
    return dataclasses.replace(claims.load_claims()[0], resamples=999)


def test_correlations_of_the_printed_table(published):
    """The values at the end of the science page, from the printed table."""
    variants = results.with_differences(published.models)
    assert len(variants) == 74
    without = variants[variants["variant"] != "weight-clipping-0.025"]
    expected = [
        (variants, "avg_flatness_rloss", 0.847, 0.856, 3),
        (without, "avg_flatness_rloss", 0.858, 0.871, 3),
        (variants, "worst_flatness_rloss", 0.50, 0.65, 2),
        (variants, "avg_flatness_ce", 0.28, 0.51, 2),
    ]
    for frame, measure, pearson, spearman, digits in expected:
        rloss = frame["test_rloss_pgd"]
        assert round(coefficient(frame[measure], rloss), digits) == pearson
        assert round(coefficient(frame[measure], rloss, "spearman"), digits) == spearman


def test_verdicts_on_the_printed_numbers(judged):
    assert len(judged) == 12
    verdicts = {name: claim.verdict for name, claim in judged.items()}
    assert verdicts.pop("train-flatness") == claims.NOT_TESTABLE  # shown as a picture only
    assert set(verdicts.values()) == {claims.REPRODUCED}


def test_every_claim_says_what_it_claims_and_how_it_is_judged(judged):
    for claim in judged.values():
        assert claim.statement
        assert claim.rule
        assert any(test.get("decides", True) for test in claim.tests)
        for test in claim.tests:
            assert test["kind"] in KINDS


def test_intervals_are_the_wider_ones(judged):
    finding = judged["flat-is-robust"].findings[0]
    assert finding.over == "families"
    assert finding.interval.low == pytest.approx(0.740, abs=0.005)
    assert finding.p < 0.001


def test_each_claim_can_fail(published):
    """Measures turned round: what was flat is sharp, what rose falls. No claim survives that."""
    models, series = published.models.copy(), published.series.copy()
    for frame in (models, series):
        for name in frame.columns:
            if "flatness_rloss" in name or name == "test_rerr_aa":
                frame[name] = 100 - frame[name]
    models.loc[models["variant"] == "at-scaled-2", "avg_flatness_rloss"] *= 2
    history = published.history.assign(test_rloss=-published.history["test_rloss"])
    turned = dataclasses.replace(published, models=models, series=series, history=history)
    verdicts = {claim.name: claim.verdict for claim in claims.judge(turned)}
    del verdicts["train-flatness"]
    assert set(verdicts.values()) == {claims.NOT_REPRODUCED}


def test_six_variants_without_curves_are_not_testable_rather_than_wrong(published):
    slugs = ["at", "trades-6", "awp-0.01", "label-noise-0.3", "weight-decay-0.05"]
    models = published.models[published.models["variant"].isin(slugs)]
    empty = (results.empty(columns) for columns in (results.HISTORY, results.SERIES, results.LANDSCAPE))
    verdicts = {c.name: c.verdict for c in claims.judge(results.Tables(models, *empty))}
    assert set(verdicts.values()) == {claims.NOT_TESTABLE}


def test_difference_of_correlations_is_paired(published, rules):
    evidence = Evidence.of(published)
    test = {"coefficient": "pearson", "measure": "avg_flatness_rloss", "against": "test_rloss_pgd"}
    same = KINDS["difference"](evidence, {**test, "minus": "avg_flatness_rloss", "sign": "positive"}, rules)
    assert same.value == 0
    assert same.outcome == FAILS
    ours = KINDS["difference"](evidence, {**test, "minus": "worst_flatness_rloss", "sign": "positive"}, rules)
    assert ours.value == pytest.approx(0.847 - 0.499, abs=0.002)
    other = KINDS["difference"](
        evidence, {**test, "minus": "worst_flatness_rloss", "sign": "negative"}, rules
    )
    assert (ours.outcome, other.outcome) == (HOLDS, FAILS)


def test_an_interval_that_touches_zero_does_not_hold(published, rules):
    noise = np.random.default_rng(0).normal(size=74)
    evidence = Evidence.of(published)
    evidence = dataclasses.replace(evidence, models=evidence.models.assign(avg_flatness_ce=noise))
    test = {"coefficient": "pearson", "measure": "avg_flatness_ce", "against": "test_rloss_pgd"}
    assert KINDS["correlation"](evidence, {**test, "sign": "positive"}, rules).outcome == FAILS


def test_early_stopping_is_paired_within_variants(published):
    variants = results.with_differences(published.models)
    by_epoch = early_stopping_pairs(variants, published.series, "avg_flatness_rloss")
    assert by_epoch.attrs["by_epoch"]
    assert len(by_epoch) == 17
    assert (by_epoch["best_test_rloss_pgd"] <= by_epoch["test_rloss_pgd"]).all()
    measured = variants.assign(best_avg_flatness_rloss=0.1)
    pairs = early_stopping_pairs(measured, published.series, "avg_flatness_rloss")
    assert not pairs.attrs["by_epoch"]
    assert len(pairs) == 74


def test_first_drop_starts_at_the_last_point_before_it(published):
    evidence = Evidence.of(published)
    epochs = evidence.from_first_drop("series", "at")["normalised_epoch"]
    assert epochs.iloc[0] == pytest.approx(0.4)
    assert len(epochs) == 10
    # A variant without learning rates of its own starts where the baseline does.
    other = evidence.from_first_drop("series", "label-smoothing-0.3")["normalised_epoch"]
    assert other.iloc[0] == pytest.approx(0.4)
    constant = published.history.assign(learning_rate=0.1)
    unchanged = Evidence.of(dataclasses.replace(published, history=constant))
    assert unchanged.from_first_drop("history", "at").empty


def test_a_snapshot_before_the_drop_counts_though_epochs_lie_between(published):
    """Curves measured at some epochs only start at the last of those before the drop."""
    history = published.history.copy()
    at = history["variant"] == "at"
    history.loc[at & (history["epoch"] % 25 != 24), "test_rerr"] = np.nan
    evidence = Evidence.of(dataclasses.replace(published, history=history))
    epochs = evidence.from_first_drop("history", "at", "test_rerr")["epoch"]
    assert epochs.tolist() == [49, 74, 99, 124, 149]


def test_bend_of_a_straight_line_does_not_hold(published, rules):
    models = Evidence.of(published).models
    rng = np.random.default_rng(0)
    straight = models.assign(test_rerr_aa=50 + 3 * models["test_rloss_pgd"] + rng.normal(size=len(models)))
    evidence = dataclasses.replace(Evidence.of(published), models=straight)
    assert KINDS["bend"](evidence, {"sign": "positive"}, rules).outcome == FAILS
    few = dataclasses.replace(evidence, models=straight[straight["test_rloss_pgd"] < 2.3])
    assert KINDS["bend"](few, {"sign": "positive"}, rules).outcome == UNTESTABLE


def test_kink_is_the_loss_of_a_uniform_guess():
    assert kink(pd.DataFrame({"classes": [4.0]})) == pytest.approx(np.log(4))
    assert kink(pd.DataFrame({"variant": ["at"]})) == pytest.approx(np.log(10))


def test_seeds_are_averaged_before_anything_is_tested(published):
    """Three seeds of the same models are 74 observations, not 222."""
    seeds = [published.models.assign(seed=seed) for seed in range(3)]
    tables = dataclasses.replace(published, models=pd.concat(seeds, ignore_index=True))
    finding = {c.name: c for c in claims.judge(tables)}["flat-is-robust"].findings[0]
    assert finding.n == 74


def test_the_baselines_own_error_counts_once_however_many_variants_there_are(published):
    """All differences to the baseline share its error: if it is as large as they are, they say nothing."""
    verdicts = []
    for error in (0.01, 10.0):
        models = published.models.assign(avg_flatness_rloss_se=error)
        judged = {c.name: c for c in claims.judge(dataclasses.replace(published, models=models))}
        verdicts.append([judged[name].verdict for name in ("variants-are-flat", "regularisers-are-flat")])
    assert verdicts == [[claims.REPRODUCED] * 2, [claims.NOT_REPRODUCED] * 2]
