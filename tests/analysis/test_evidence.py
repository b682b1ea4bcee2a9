"""What rules compare: which points, which variants, which models."""

from dataclasses import replace

import made_up
import numpy as np
import pandas as pd
import pytest
from made_up import changed, only_seeds, shifted

from robust_flatness.analysis import claims, rises
from robust_flatness.analysis.claim_tests.trainings import difference_of_groups
from robust_flatness.analysis.evidence import Evidence, improved_by_early_stopping
from robust_flatness.folders import repository


def test_one_rising_curve_is_no_overfitting_where_the_other_seeds_fall(judge, true):
    """A steady trend of the first seed held under the rule for one curve, whatever other seeds do."""
    mixed = shifted(true, "test", [0, -1.1, -0.3, -0.7, -0.4])
    verdict, found = judge("robust-overfitting", mixed)
    assert verdict == claims.INCONCLUSIVE
    assert found[0].interval.low < 0 < found[0].interval.high
    assert found[0].over == f"seeds and {made_up.EXAMPLES} examples"
    alone, trend = judge("robust-overfitting", only_seeds(mixed, 1))
    assert alone == claims.REPRODUCED
    assert "the weaker rule" in trend[0].note


def test_snapshots_are_compared_with_snapshots(true):
    """The last checkpoint's own evaluation has a stronger attack: a rise that is none."""
    evidence = Evidence.of(true)
    rise = rises.rise(evidence.seeds, "at", "test_rloss_pgd", "after-drop")
    assert rise.shape == (made_up.SEEDS, made_up.EXAMPLES)
    examples = true.examples.copy()
    examples.loc[examples["checkpoint"] == "last", "rloss"] += 5
    other = rises.rise(replace(true, examples=examples), "at", "test_rloss_pgd", "after-drop")
    assert np.array_equal(other, rise)


def test_a_small_group_of_small_variance_differs_significantly_from_a_large_one(spec):
    """By permutations of Welch's t; those of the difference put far values into the small group."""
    rng = np.random.default_rng(0)
    improved = np.arange(69) < 6
    values = np.where(improved, rng.normal(-0.08, 0.02, 69), rng.normal(0, 0.09, 69))
    found = difference_of_groups(values, improved, pd.Series([*map(str, range(69))]), spec)
    assert found.p < 0.01


def test_a_lower_loss_within_the_noise_of_the_evaluation_is_no_improvement(true):
    table = true.models.pivot_table(index="variant", columns="checkpoint", values="test_rloss_pgd")
    clearly = table.index[table["best"] < table["last"] - 0.05]
    improved = improved_by_early_stopping(true.examples)
    assert len(clearly) > 10
    assert all(improved[slug] for slug in clearly)
    # The same means, of examples that vary more between the two checkpoints, no longer show it.
    examples = true.examples.copy()
    best = examples["checkpoint"] == "best"
    examples.loc[best, "rloss"] += np.random.default_rng(0).normal(0, 5, int(best.sum()))
    assert sum(improved_by_early_stopping(examples).values()) < len(improved) / 5


def test_a_lower_error_within_noise_takes_no_part(judge, true):
    """Variants whose errors on single examples are the baseline's own, whatever the table of means says."""
    examples = true.examples.assign(rerr_aa=true.examples["rerr_pgd"])
    verdict, found = judge("variants-are-flat", replace(true, examples=examples))
    assert verdict == claims.REPRODUCED
    assert "taking part: awp (5), trades (5), mart (5), self-supervision (5), unlabeled (5)" in found[0].note
    at = examples["variant"].eq("at") & examples["checkpoint"].eq("last") & examples["split"].eq("test")
    errors = examples[at & examples["seed"].eq(0)].set_index("example")["rerr_aa"]
    same = examples.assign(rerr_aa=examples["example"].map(errors))
    verdict, found = judge("variants-are-flat", replace(true, examples=same))
    assert verdict == claims.INCONCLUSIVE
    assert "taking part: none" in found[0].note


def test_a_seed_that_has_not_learnt_is_left_out_and_named(judge, true):
    second = changed(true, "variant == 'at' and seed == 1", train_rerr_pgd=85.0)
    verdict, found = judge("robust-overfitting", second)
    assert verdict == claims.REPRODUCED
    assert found[0].n == made_up.SEEDS - 1
    assert "not having learnt: at (seed 1)" in found[0].note
    _, found = judge("flat-is-robust", second)
    assert found[0].n == 76


def test_what_was_measured_is_never_not_testable(judge, true):
    """Where the baseline has not learnt, its rate does not drop, or a ratio has no meaning."""
    undecided = {
        "variants-are-flat": changed(true, "variant == 'at'", train_rerr_pgd=90.0),
        "robust-overfitting": replace(true, history=true.history.assign(learning_rate=0.1)),
        "scale-invariant": changed(true, "variant == 'at-scaled-2'", avg_flatness_rloss=-0.01),
    }
    for name, tables in undecided.items():
        assert judge(name, tables)[0] == claims.INCONCLUSIVE, name


@pytest.mark.parametrize(("name", "number"), [("early-stopping-is-flat", 1), ("variants-are-flat", 0)])
def test_variants_without_values_of_single_examples_are_left_out_and_named(judge, true, name, number):
    known = true.examples.assign(rerr_aa=true.examples["rerr_pgd"])
    _, whole = judge(name, replace(true, examples=known))
    verdict, found = judge(name, replace(true, examples=known[known["variant"] != "awp-0"]))
    assert verdict == claims.REPRODUCED
    assert "left out, without values of single examples: awp-0" in found[number].note
    assert whole[number].n - found[number].n == 1


def test_the_statistic_with_models_that_have_not_learnt_counts_them(judge, true):
    """Their flatness differs from that of all others, at both checkpoints."""
    flat = lambda m: m["avg_flatness_rloss"] - 9.0 * (m["checkpoint"] == "best")  # noqa: E731
    tables = changed(true, "family == 'adam'", train_rerr_pgd=90.0, avg_flatness_rloss=flat)
    _, found = judge("early-stopping-is-flat", tables)
    assert found[0].value > -1 > float(found[0].note.split("with these: ")[1].split(" [")[0])


def test_variants_with_the_same_weights_count_once(true):
    """An average of the last steps has the weights of the baseline, and other batch-norm statistics."""
    at = true.models["variant"].eq("at")
    norms = pd.Series(100 * 1.01 ** np.arange(len(at)))
    norms[at] = 15.0
    norms[true.models["variant"].isin(["adam-70", "adam-71"])] = 15.001
    names = ("weight_norm", "distance_from_init", "spectral_product")
    files = np.where(true.models["variant"] == "awp-3", "at", "")
    evidence = Evidence.of(changed(true, **dict.fromkeys(names, norms), same_as=files))
    assert evidence.repeated == {"awp-3": "at", "adam-70": "at", "adam-71": "at"}
    assert {*evidence.repeated}.isdisjoint(evidence.models["variant"])


@pytest.mark.parametrize("path", ["claims.yaml", "later-claims.yaml"])
def test_an_experiment_in_which_next_to_nothing_has_learnt_reproduces_no_claim(true, path):
    columns = ("test_rloss_pgd_eps_0.25", "test_rloss_pgd_eps_2", "setting_learning_rate")
    stuck = changed(true, "variant != 'at'", train_rerr_pgd=90.0, **dict.fromkeys(columns, 1.0))
    judged = claims.judge(only_seeds(stuck, 1), true, repository() / "config" / path)
    of_baseline = judged["claim"].isin(["robust-overfitting", "overfitting-is-sharpening", "scale-invariant"])
    assert {*judged["verdict"][~of_baseline]} <= {claims.NOT_TESTABLE, claims.INCONCLUSIVE}
