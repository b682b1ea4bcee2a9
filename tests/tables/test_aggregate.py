"""Averages over seeds, networks that have not learnt, differences within a variant, joins."""

import math

import pandas as pd
import pytest

from robust_flatness.tables import aggregate
from robust_flatness.tables.printed import read_printed, read_published


def rows_of(**columns) -> pd.DataFrame:
    """A table of one variant per value, at its last checkpoint."""
    count = len(next(iter(columns.values())))
    frame = pd.DataFrame({"variant": [f"v{i}" for i in range(count)], "seed": 0, "checkpoint": "last"})
    return frame.assign(derived=0, **columns)


def test_seeds_are_averaged_with_their_spread():
    models = read_published().models
    seeds = [models.assign(seed=seed, test_rloss_pgd=models["test_rloss_pgd"] + seed) for seed in range(4)]
    at = aggregate.variants_at(pd.concat(seeds)).set_index("variant").loc["at"]
    assert at["test_rloss_pgd"] == pytest.approx(3.91 + 1.5)
    assert at["test_rloss_pgd_seed_sd"] == pytest.approx(math.sqrt(5 / 3))
    assert (at["seeds"], at["label"]) == (4, "AT (baseline)")
    assert "test_rloss_pgd_seed_sd" not in aggregate.variants_at(models)


def test_a_network_near_guessing_has_not_learnt():
    of_ten = rows_of(train_rerr_pgd=[79.9, 80.0, 90.0, math.nan])
    assert aggregate.learnt(of_ten).tolist() == [True, False, False, True]
    of_two = rows_of(train_rerr_pgd=[39.9, 40.0], classes=[2.0, 2.0])
    assert aggregate.learnt(of_two).tolist() == [True, False]
    uncertain = rows_of(train_rerr_pgd=[79.0, 79.0], train_rerr_pgd_se=[0.4, 0.6])
    assert aggregate.learnt(uncertain).tolist() == [True, False]
    not_finite = rows_of(train_rerr_pgd=[5.0, 5.0], not_finite=["", "avg_flatness_rloss"])
    assert aggregate.learnt(not_finite).tolist() == [True, False]


def test_the_last_checkpoint_decides_for_the_network():
    last = rows_of(train_rerr_pgd=[10.0, 85.0])
    best = last.assign(checkpoint="best", train_rerr_pgd=[85.0, 20.0])
    assert aggregate.learnt(pd.concat([last, best], ignore_index=True)).tolist() == [True, False] * 2


def test_seeds_that_have_not_learnt_are_left_out_of_the_mean():
    errors = ([10, 85], [90, 90])
    seeds = [rows_of(train_rerr_pgd=errors[seed]).assign(seed=seed) for seed in range(2)]
    averaged = aggregate.variants_at(pd.concat(seeds, ignore_index=True))
    assert averaged["train_rerr_pgd"].tolist() == [10, 87.5]
    assert averaged["seeds"].tolist() == [1, 2]
    assert aggregate.learnt(averaged).tolist() == [True, False]


def test_differences_are_within_a_variant():
    variants = aggregate.with_differences(read_published().models).set_index("variant")
    assert len(variants) == 74
    assert variants.loc["at", "rloss_gap"] == pytest.approx(3.91 - 0.19)
    assert variants.loc["at", "rloss_overfitting"] == pytest.approx(3.91 - 1.53)
    assert variants.loc["at", "best_test_rerr_aa"] == 54.6


def test_scaled_models_are_compared_with_the_seed_they_were_made_from():
    rows = [("at", seed, 0, "at", 1.0 + seed) for seed in range(3)] + [("at-scaled-2", 1, 1, "scaled", 2.0)]
    columns = ("variant", "seed", "derived", "family", "avg_flatness_rloss")
    models = pd.DataFrame(rows, columns=columns).assign(checkpoint="last", train_rerr_pgd=5.0, classes=10)
    found = aggregate.with_scaled(models).set_index("variant")["avg_flatness_rloss"]
    assert found.to_dict() == {"at": 2.0, "at-scaled-2": 2.0}
    assert aggregate.with_scaled(models[models["derived"] == 0])["avg_flatness_rloss"].tolist() == [2.0]


def test_groups_of_robustness_are_as_printed_and_computed_where_none_are_printed():
    variants = aggregate.variants_at(read_published().models)
    groups = read_printed("variants").set_index("variant")["robustness_group"]
    assert (aggregate.with_groups(variants).set_index("variant")["group"] == groups).all()
    computed = aggregate.with_groups(variants.assign(robustness_group="")).set_index("variant")["group"]
    assert (computed["at"], computed["unlabeled"]) == ("poor", "good")
    made = rows_of(test_rerr_pgd=[*range(10, 21), 30.0, 40.0, math.nan])
    made.loc[10, "variant"] = "at"
    by_hand = ["good"] * 4 + ["average"] * 4 + ["poor"] * 3 + ["worse"] * 2 + [""]
    assert [*aggregate.with_groups(made)["group"]] == by_hand
    assert {*aggregate.with_groups(made.drop(10))["group"]} == {""}
