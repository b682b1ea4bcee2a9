"""The comparison of measures, and the claims made since the talk."""

from dataclasses import replace
from functools import partial

import made_up
import numpy as np
import pytest
from made_up import changed, noise, without

from robust_flatness.analysis import claims, comparison
from robust_flatness.analysis.correlation import difference
from robust_flatness.analysis.evidence import Evidence
from robust_flatness.tables import aggregate


@pytest.fixture(scope="module")
def tables():
    """The made-up experiment with rates, gaps of robust error and other radii of the attack."""
    made, rng = made_up.experiment(), np.random.default_rng(3)
    models = made.models.copy()
    models["test_rerr_pgd"] = 40 + rng.normal(0, 3, len(models))
    models["setting_learning_rate"] = 0.05
    rates = models["family"] == "learning-rate"
    models.loc[rates, "setting_learning_rate"] = [0.005, 0.01, 0.02, 0.1, 0.2] * 2
    models["test_rloss_pgd_eps_0.25"] = 10 + 5 * models["avg_flatness_rloss"] + rng.normal(0, 1, len(models))
    models["test_rloss_pgd_eps_2"] = 80 + rng.normal(0, 2, len(models))
    return replace(made, models=models)


def test_few_measures_go_with_the_gap(tables, judge):
    assert judge("measures-and-the-gap", tables)[0] == claims.REPRODUCED
    flatness = tables.models["avg_flatness_rloss"]
    follow = {name: flatness for name in tables.models if "flatness" in name and not name.endswith("xi")}
    gap = changed(tables, test_rerr_pgd=40 + 9 * flatness, **follow)
    assert judge("measures-and-the-gap", gap)[0] == claims.NOT_REPRODUCED
    assert judge("measures-and-the-gap", without(tables, "train_rerr_pgd"))[0] == claims.NOT_TESTABLE
    five = tables.models["variant"].isin(tables.models["variant"].unique()[:5])
    few = replace(tables, models=tables.models[five])
    assert judge("measures-and-the-gap", few)[0] == claims.INCONCLUSIVE


def test_sharpness_follows_the_rate_and_nothing_else(tables, judge):
    assert judge("sharpness-follows-the-rate", tables)[0] == claims.NOT_REPRODUCED  # it follows RLoss
    rng = np.random.default_rng(0)
    rate = np.log10(tables.models["setting_learning_rate"])
    follows = changed(tables, avg_flatness_rloss=3 - 5 * rate + rng.normal(0, 1e-3, len(rate)))
    assert judge("sharpness-follows-the-rate", follows)[0] == claims.REPRODUCED
    unknown = without(tables, "setting_learning_rate")
    assert judge("sharpness-follows-the-rate", unknown)[0] == claims.NOT_TESTABLE


def test_flatness_that_goes_with_small_attacks_alone_is_local(tables, judge):
    assert judge("flatness-is-local", tables)[0] == claims.REPRODUCED
    alike = changed(tables, **{"test_rloss_pgd_eps_2": 2 * tables.models["test_rloss_pgd_eps_0.25"]})
    assert judge("flatness-is-local", alike)[0] == claims.NOT_REPRODUCED
    unmeasured = changed(tables, **{"test_rloss_pgd_eps_2": np.nan})
    assert judge("flatness-is-local", unmeasured)[0] == claims.NOT_TESTABLE


def test_the_weight_curvature_index_goes_with_the_gap(tables, judge):
    name, index = "weight-curvature-and-the-gap", "weight_curvature_index_rloss"
    assert judge(name, tables)[0] == claims.NOT_TESTABLE
    gap = tables.models["test_rloss_pgd"] - tables.models["train_rloss_pgd"]
    assert judge(name, changed(tables, **{index: 100 + 20 * gap}))[0] == claims.REPRODUCED
    assert judge(name, changed(tables, **{index: 100 - 20 * gap}))[0] == claims.NOT_REPRODUCED
    assert judge(name, changed(tables, **{index: noise(gap) + gap / 10}))[0] == claims.INCONCLUSIVE


def test_a_measure_of_few_variants_says_how_many(tables):
    rloss, variants = tables.models["test_rloss_pgd"], tables.models["variant"].unique()
    for count, words in ((8, ["largest Hessian eigenvalue (n = 8)"]), (3, [])):
        some = rloss.where(tables.models["variant"].isin(variants[:count]))
        compared = comparison.compare(Evidence.of(changed(tables, hessian_max=some)), [], ["spearman"], 199)
        rows = comparison.by_split(compared)["on training examples"]
        assert [*rows["words"][~comparison.of_most(rows)]] == words
        assert [*rows["words"][rows["measure"] == "hessian_max"]] == words


def test_a_measure_is_compared_with_the_controls_whatever_their_sign(tables):
    """A control that follows RLoss downwards is as strong as one that follows it upwards."""
    rloss = tables.models["test_rloss_pgd"]
    strong = changed(tables, weight_norm=10 - rloss, distance_from_init=noise(rloss))
    settings = {"y": "test_rloss_pgd", "kind": "spearman", "absolute": True, "resamples": 499}
    models = aggregate.with_differences(strong.models)
    compared = partial(difference, models, "avg_flatness_rloss", **settings)
    assert compared("weight_norm").interval.high < 0
    assert compared("distance_from_init").interval.low > 0.3


def test_sharpness_on_test_examples_is_a_group_of_its_own(tables):
    rloss = tables.models["test_rloss_pgd"]
    measured = changed(tables, test_sam_rloss=rloss, sam_rloss=noise(rloss))
    compared = comparison.compare(Evidence.of(measured), [], ["spearman"], resamples=199)
    on_test = compared["group"] == comparison.ON_TEST
    assert {*compared["column"][on_test]} == {"test_sam_rloss"}
    assert on_test.is_monotonic_increasing
    values = compared[compared["against"] == comparison.RLOSS].set_index("column")["value"]
    assert values["test_sam_rloss"] == pytest.approx(1)
    assert abs(values["sam_rloss"]) < 0.4
