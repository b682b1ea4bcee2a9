"""The comparison of measures, and the claims made since the talk."""

from dataclasses import replace

import made_up
import numpy as np
import pandas as pd
import pytest

from robust_flatness.analysis import claims, comparison
from robust_flatness.analysis.evidence import Evidence
from robust_flatness.tables import aggregate, frames

LATER = frames.repository() / "config" / "later-claims.yaml"


@pytest.fixture(scope="module")
def tables():
    """The made-up experiment with rates, gaps of robust error and other radii of the attack."""
    made = made_up.experiment()
    models = made.models.copy()
    rng = np.random.default_rng(3)
    models["train_rerr_pgd"] = 5.0
    models["test_rerr_pgd"] = 40 + rng.normal(0, 3, len(models))
    models["setting_learning_rate"] = 0.05
    rates = models["family"] == "learning-rate"
    models.loc[rates, "setting_learning_rate"] = [0.005, 0.01, 0.02, 0.1, 0.2] * 2
    models["test_rerr_pgd_eps_0.25"] = 10 + 5 * models["avg_flatness_rloss"] + rng.normal(0, 1, len(models))
    models["test_rerr_pgd_eps_2"] = 80 + rng.normal(0, 2, len(models))
    return replace(made, models=models)


@pytest.fixture(scope="module")
def judge():
    spec = claims.load_claims(LATER).model_copy(update={"resamples": 999})

    def judge(name, tables):
        found = claims.findings(spec.claims[name], Evidence.of(tables), spec)
        return claims.verdict(spec.claims[name], found)

    return judge


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
    alike = with_models(tables, **{"test_rerr_pgd_eps_2": 2 * tables.models["test_rerr_pgd_eps_0.25"]})
    assert judge("flatness-is-local", alike) == claims.NOT_REPRODUCED
    unmeasured = with_models(tables, **{"test_rerr_pgd_eps_2": np.nan})
    assert judge("flatness-is-local", unmeasured) == claims.NOT_TESTABLE


def test_measures_are_compared_at_their_main_radius_and_without_spreads(tables):
    models = aggregate.with_differences(tables.models.assign(avg_flatness_rloss_se=0.1))
    columns = [column for found in comparison.candidates(models) for column in found.columns.values()]
    assert "avg_flatness_rloss" in columns
    assert "train_avg_flatness_rloss" in columns
    assert "train_rloss_pgd" in columns
    assert not {"worst_flatness_rloss_0.005", "avg_flatness_rloss_se", "test_rloss_pgd"} & {*columns}
    assert len(columns) == len(set(columns))


def test_the_best_measure_is_ranked_first(tables):
    models = aggregate.with_differences(tables.models)
    compared = comparison.compare(models, ["learning-rate"], ["spearman", "granulated"], resamples=199)
    ranked = comparison.ranked(compared, "test_rloss_pgd", "spearman")
    assert ranked[0].startswith("avg_flatness")
    rows = compared[(compared["column"] == "avg_flatness_rloss") & (compared["against"] == "test_rloss_pgd")]
    rows = rows.dropna(subset=["low"])  # one family alone has no interval
    assert (rows["low"] <= rows["value"]).all()
    assert (rows["value"] <= rows["high"]).all()
    margins = comparison.beats(compared, "test_rloss_pgd", "spearman", "avg_flatness_rloss")
    assert margins["train_rloss_pgd"] > 0.5


def test_a_margin_is_ranked_by_its_negative(tables, monkeypatch):
    models = aggregate.with_differences(tables.models)
    monkeypatch.setattr(comparison, "LARGER_IS_BETTER", ("avg_flatness",))
    compared = comparison.compare(models, [], ["spearman"], ["test_rloss_pgd"], resamples=199)
    values = compared.set_index("column")["value"]
    assert values["avg_flatness_rloss"] < -0.9
    assert values["train_avg_flatness_rloss"] < -0.9
    assert pd.isna(values["hessian_max"])  # it does not vary
