"""The comparison of measures, and the claims made since the talk."""

from dataclasses import replace

import made_up
import numpy as np
import pandas as pd
import pytest

from robust_flatness.analysis import claims, comparison
from robust_flatness.analysis.evidence import Evidence
from robust_flatness.folders import repository
from robust_flatness.tables import aggregate

LATER = repository() / "config" / "later-claims.yaml"


@pytest.fixture(scope="module")
def tables():
    """The made-up experiment with rates, gaps of robust error and other radii of the attack."""
    made = made_up.experiment()
    models = made.models.copy()
    rng = np.random.default_rng(3)
    models["test_rerr_pgd"] = 40 + rng.normal(0, 3, len(models))
    models["setting_learning_rate"] = 0.05
    rates = models["family"] == "learning-rate"
    models.loc[rates, "setting_learning_rate"] = [0.005, 0.01, 0.02, 0.1, 0.2] * 2
    models["test_rloss_pgd_eps_0.25"] = 10 + 5 * models["avg_flatness_rloss"] + rng.normal(0, 1, len(models))
    models["test_rloss_pgd_eps_2"] = 80 + rng.normal(0, 2, len(models))
    return replace(made, models=models)


@pytest.fixture(scope="module")
def judge():
    spec = claims.load_claims(LATER).model_copy(update={"resamples": 999})

    def judge(name, tables):
        found = claims.findings(spec.claims[name], Evidence.of(tables), spec)
        return claims.verdict(spec.claims[name], found)

    return judge


def noise(frame):
    return np.random.default_rng(7).normal(size=len(frame))


def with_models(tables, **columns):
    return replace(tables, models=tables.models.assign(**columns))


def test_few_measures_go_with_the_gap(tables, judge):
    assert judge("measures-and-the-gap", tables) == claims.REPRODUCED
    flatness = tables.models["avg_flatness_rloss"]
    follow = {name: flatness for name in tables.models if "flatness" in name and not name.endswith("xi")}
    gap = with_models(tables, test_rerr_pgd=40 + 9 * flatness, **follow)
    assert judge("measures-and-the-gap", gap) == claims.NOT_REPRODUCED
    unmeasured = replace(tables, models=tables.models.drop(columns="train_rerr_pgd"))
    assert judge("measures-and-the-gap", unmeasured) == claims.NOT_TESTABLE


def test_sharpness_follows_the_rate_and_nothing_else(tables, judge):
    assert judge("sharpness-follows-the-rate", tables) == claims.NOT_REPRODUCED  # it follows RLoss
    rng = np.random.default_rng(0)
    rate = np.log10(tables.models["setting_learning_rate"])
    follows = with_models(tables, avg_flatness_rloss=3 - 5 * rate + rng.normal(0, 1e-3, len(rate)))
    verdict = judge("sharpness-follows-the-rate", follows)
    assert verdict == claims.REPRODUCED
    unknown = replace(tables, models=tables.models.drop(columns="setting_learning_rate"))
    assert judge("sharpness-follows-the-rate", unknown) == claims.NOT_TESTABLE


def test_flatness_that_goes_with_small_attacks_alone_is_local(tables, judge):
    assert judge("flatness-is-local", tables) == claims.REPRODUCED
    alike = with_models(tables, **{"test_rloss_pgd_eps_2": 2 * tables.models["test_rloss_pgd_eps_0.25"]})
    assert judge("flatness-is-local", alike) == claims.NOT_REPRODUCED
    unmeasured = with_models(tables, **{"test_rloss_pgd_eps_2": np.nan})
    assert judge("flatness-is-local", unmeasured) == claims.NOT_TESTABLE


def test_the_weight_curvature_index_goes_with_the_gap(tables, judge):
    name, index = "weight-curvature-and-the-gap", "weight_curvature_index_rloss"
    assert judge(name, tables) == claims.NOT_TESTABLE
    gap = tables.models["test_rloss_pgd"] - tables.models["train_rloss_pgd"]
    assert judge(name, with_models(tables, **{index: 100 + 20 * gap})) == claims.REPRODUCED
    assert judge(name, with_models(tables, **{index: 100 - 20 * gap})) == claims.NOT_REPRODUCED
    assert judge(name, with_models(tables, **{index: noise(gap) + gap / 6})) == claims.INCONCLUSIVE


def test_the_best_measure_is_ranked_first(tables):
    models = aggregate.with_differences(tables.models)
    compared = comparison.compare(models, ["learning-rate"], ["spearman", "granulated"], resamples=199)
    spearman = compared[(compared["against"] == "test_rloss_pgd") & (compared["coefficient"] == "spearman")]
    assert spearman.loc[spearman["value"].idxmax(), "measure"].startswith("avg_flatness")
    rows = compared[(compared["column"] == "avg_flatness_rloss") & (compared["against"] == "test_rloss_pgd")]
    rows = rows.dropna(subset=["low"])  # one family alone has no interval
    assert (rows["low"] <= rows["value"]).all()
    assert (rows["value"] <= rows["high"]).all()


def test_a_measure_is_compared_with_the_controls_whatever_their_sign(tables):
    """A control that follows RLoss downwards is as strong as one that follows it upwards."""
    rloss = tables.models["test_rloss_pgd"]
    strong = with_models(tables, weight_norm=10 - rloss, distance_from_init=noise(rloss))
    models = aggregate.with_differences(strong.models)
    found = comparison.advantages(models, "avg_flatness_rloss", "test_rloss_pgd", resamples=499)
    by_control = {advantage.control: advantage for advantage in found}
    assert [*by_control] == ["weight_norm", "distance_from_init", "train_rloss_pgd"]
    assert by_control["weight_norm"].value < 0
    assert "less strongly than norm of the weights" in by_control["weight_norm"].words
    assert by_control["distance_from_init"].interval.low > 0.3
    assert "more strongly than" in by_control["distance_from_init"].words
    same = comparison.advantages(
        models.assign(weight_norm=models["avg_flatness_rloss"]),
        "avg_flatness_rloss", "test_rloss_pgd", resamples=499,
    )  # fmt: skip
    assert "not differently from" in same[0].words


def test_sharpness_on_test_examples_is_a_group_of_its_own(tables):
    rloss = tables.models["test_rloss_pgd"]
    measured = with_models(tables, sam_rloss=noise(rloss), test_sam_rloss=rloss)
    models = aggregate.with_differences(measured.models)
    usual = comparison.compare(models, [], ["spearman"], resamples=199)
    both = comparison.compare(models, [], ["spearman"], resamples=199, on_test=True)
    pd.testing.assert_frame_equal(both.iloc[: len(usual)], usual)
    assert {*both["group"].iloc[len(usual) :]} == {comparison.ON_TEST}
    pairs = comparison.of_both_splits(both, comparison.RLOSS, "spearman").set_index("measure")
    assert pairs.loc["sam", "test"] == pytest.approx(1)
    assert abs(pairs.loc["sam", "train"]) < 0.4
