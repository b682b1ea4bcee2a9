"""Each rule on tables where its claim is true, where it is false, and where they cannot tell."""

import functools
import math
from dataclasses import replace

import made_up
import numpy as np
import pandas as pd
import pytest

from robust_flatness.analysis import claims, curves
from robust_flatness.analysis.claim_tests.base import Finding, judged
from robust_flatness.analysis.claim_tests.variants import difference_of_groups
from robust_flatness.analysis.coefficients import weighted_line
from robust_flatness.analysis.evidence import (
    Evidence,
    early_stopping_pairs,
    improved_by_early_stopping,
    more_robust,
)
from robust_flatness.analysis.hinge import fit_hinge
from robust_flatness.analysis.resampling import Interval
from robust_flatness.folders import repository

LN_K = math.log(10)


@pytest.fixture(scope="module")
def spec():
    return claims.load_claims().model_copy(update={"resamples": 999})


@pytest.fixture(scope="module")
def true():
    return made_up.experiment()


@pytest.fixture(scope="module")
def judge(spec, true):
    """Verdict and findings of one claim, the true experiment being the one that was printed."""

    @functools.cache
    def printed(name):
        return claims.findings(spec.claims[name], Evidence.of(true), spec)

    def judge(name, tables):
        claim = spec.claims[name]
        found = claims.findings(claim, Evidence.of(tables), spec, printed(name))
        return claims.verdict(claim, found), found

    return judge


def changed(tables, where=None, **columns):
    """The tables with columns of `models` changed, in the rows `where` (a condition on the frame)."""
    models = tables.models.copy()
    rows = np.full(len(models), True) if where is None else where(models)
    for name, value in columns.items():
        models.loc[rows, name] = value(models[rows]) if callable(value) else value
    return replace(tables, models=models)


def noise(frame, scale=1.0, seed=1):
    return np.random.default_rng(seed).normal(1, scale, len(frame))


def per_seed(tables, table, measure, changes):
    """A curve of the baseline that changes by `changes[seed]` after the first drop, without noise."""
    frame = getattr(tables, table).copy()
    for seed, change in enumerate(changes):
        rows = (frame["variant"] == "at") & (frame["seed"] == seed)
        late = np.maximum(frame.loc[rows, "epoch"] - made_up.DROP + 1, 0) / (made_up.EPOCHS - made_up.DROP)
        frame.loc[rows, measure] = 1 + change * late
    return replace(tables, **{table: frame})


def shifted(tables, split, changes):
    """Losses and errors of the baseline's examples, at the end moved by `changes[seed]`."""
    examples, end = tables.examples.copy(), {"test": "last", "train": "epoch-039"}[split]
    for seed, change in enumerate(changes):
        rows = examples["variant"].eq("at") & examples["checkpoint"].eq(end)
        rows &= examples["split"].eq(split)
        examples.loc[rows & examples["seed"].eq(seed), "rloss"] += change
        examples["rerr_pgd"] = (examples["rloss"] > 1.8).astype(float)
    return replace(tables, examples=examples)


def only_seeds(tables, seeds):
    """The tables with fewer seeds of the baseline."""
    frames = {}
    for name in ("models", "history", "series", "examples"):
        frame = getattr(tables, name)
        frames[name] = frame[frame["seed"] < seeds]
    return replace(tables, **frames)


#: Changes that make a claim false, where nothing else is wrong with the tables.
FALSE = {
    "robust-overfitting": lambda t: shifted(t, "test", [-0.5] * 5),
    "overfitting-is-sharpening": lambda t: per_seed(t, "series", "avg_flatness_rloss", [0] * 5),
    "early-stopping-is-flat": lambda t: changed(
        t, lambda m: m["checkpoint"] == "best", avg_flatness_rloss=lambda m: noise(m)
    ),
    "flat-is-robust": lambda t: changed(t, avg_flatness_rloss=noise),
    "variants-are-flat": lambda t: changed(
        t, lambda m: m["family"].isin(made_up.ROBUST), avg_flatness_rloss=lambda m: noise(m, 0.2)
    ),
    "regularisers-are-flat": lambda t: changed(
        t, lambda m: m["family"].isin(made_up.REGULARISERS), avg_flatness_rloss=lambda m: noise(m, 0.2)
    ),
    "worst-case-is-weaker": lambda t: changed(
        t, **{"worst_flatness_rloss_0.00075": lambda m: m["worst_flatness_rloss_0.005"] * 0.15}
    ),
    "gap-and-overfitting": lambda t: changed(t, train_rloss_pgd=lambda m: m["test_rloss_pgd"] - noise(m)),
    "train-flatness": lambda t: changed(t, train_avg_flatness_rloss=noise),
    "clean-flatness-does-not": lambda t: changed(t, avg_flatness_ce=lambda m: m["avg_flatness_rloss"] / 3),
    "scale-invariant": lambda t: changed(
        t, lambda m: m["variant"] == "at-scaled-2", avg_flatness_rloss=lambda m: 2 * m["avg_flatness_rloss"]
    ),
    "rerr-kink": lambda t: changed(t, test_rerr_aa=lambda m: 40 + 8 * m["test_rloss_pgd"] + noise(m, 0.3)),
}

#: Changes after which a claim may be true as well as false.
INCONCLUSIVE = {
    "robust-overfitting": lambda t: shifted(t, "test", [0.5, -1.0, 0.2, -0.7, 0.2]),
    "overfitting-is-sharpening": lambda t: per_seed(
        t, "series", "avg_flatness_rloss", [0.5, -0.4, 0.1, -0.3, 0.05]
    ),
    "early-stopping-is-flat": lambda t: changed(
        t, lambda m: m["checkpoint"] == "best", avg_flatness_rloss=lambda m: 0.95 * noise(m, 3)
    ),
    "flat-is-robust": lambda t: replace(t, models=t.models[t.models["family"].isin(["awp"])]),
    "variants-are-flat": lambda t: changed(
        t, lambda m: m["family"].isin(made_up.ROBUST), avg_flatness_rloss=lambda m: noise(m, 2)
    ),
    "regularisers-are-flat": lambda t: replace(
        t, models=t.models[~t.models["family"].isin(made_up.REGULARISERS[1:])]
    ),
    "rerr-kink": lambda t: changed(t, test_rerr_aa=lambda m: m["test_rerr_aa"] + noise(m, 8)),
}

#: Changes that leave the tables without a measure that a claim is judged by.
UNTESTABLE = {
    "robust-overfitting": lambda t: replace(
        t,
        examples=t.examples[t.examples["split"] == "test"],
        history=t.history.drop(columns="train_rloss"),
    ),
    "overfitting-is-sharpening": lambda t: replace(t, series=t.series.drop(columns="avg_flatness_rloss")),
    "early-stopping-is-flat": lambda t: replace(
        t, models=t.models[t.models["checkpoint"] == "last"], series=t.series[:0]
    ),
    "flat-is-robust": lambda t: without(t, "avg_flatness_rloss"),
    "variants-are-flat": lambda t: without(t, "avg_flatness_rloss"),
    "regularisers-are-flat": lambda t: replace(t, models=t.models[t.models["variant"] != "at"]),
    "worst-case-is-weaker": lambda t: without(
        t, "worst_flatness_rloss_0.00075", "worst_flatness_rloss_0.005"
    ),
    "gap-and-overfitting": lambda t: without(t, "train_rloss_pgd"),
    "train-flatness": lambda t: without(t, "train_avg_flatness_rloss"),
    "clean-flatness-does-not": lambda t: without(t, "avg_flatness_ce"),
    "scale-invariant": lambda t: replace(t, models=t.models[t.models["variant"] != "at-scaled-2"]),
    "rerr-kink": lambda t: without(t, "test_rerr_aa"),
}


def without(tables, *columns):
    return replace(tables, models=tables.models.drop(columns=[*columns]))


def test_the_made_up_experiment_reproduces_every_claim(spec, true):
    evidence = Evidence.of(true)
    for name, claim in spec.claims.items():
        found = claims.findings(claim, evidence, spec)
        assert claims.verdict(claim, found) == claims.REPRODUCED, (name, found)


def test_every_claim_has_a_false_and_an_untestable_case(spec):
    assert [*FALSE] == [*UNTESTABLE] == [*spec.claims]
    assert {*INCONCLUSIVE} < {*spec.claims}


@pytest.mark.parametrize("name", FALSE)
def test_a_false_claim_is_not_reproduced(judge, true, name):
    verdict, found = judge(name, FALSE[name](true))
    assert verdict == claims.NOT_REPRODUCED, found


@pytest.mark.parametrize("name", INCONCLUSIVE)
def test_tables_that_cannot_tell_are_inconclusive(judge, true, name):
    verdict, found = judge(name, INCONCLUSIVE[name](true))
    assert verdict == claims.INCONCLUSIVE, found


@pytest.mark.parametrize("name", UNTESTABLE)
def test_without_a_measure_a_claim_is_not_testable(judge, true, name):
    verdict, found = judge(name, UNTESTABLE[name](true))
    assert verdict == claims.NOT_TESTABLE, found
    assert any("not measured" in finding.note or "were" in finding.note for finding in found)


@pytest.mark.parametrize(
    ("interval", "p", "outcome"),
    [
        ((0.1, 0.3), 0.01, "holds"),
        ((0.1, 0.6), 0.2, "inconclusive"),
        ((-0.1, 0.6), 0.2, "inconclusive"),
        ((-0.1, 0.4), 0.2, "does not hold"),
        ((-0.4, -0.1), 0.01, "does not hold"),
        ((math.nan, math.nan), math.nan, "inconclusive"),
    ],
)
def test_an_interval_that_excludes_the_reference_effect_does_not_hold(spec, interval, p, outcome):
    found = Finding(0.2, Interval(*interval), p=p, n=20)
    assert judged(found, "positive", 0.5, spec).outcome == outcome
    mirrored = replace(found, interval=Interval(-interval[1], -interval[0]))
    assert judged(mirrored, "negative", 0.5, spec).outcome == outcome


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
    rise = curves.rise(evidence.seeds, "at", "test_rloss_pgd", "after-drop")
    assert rise.shape == (made_up.SEEDS, made_up.EXAMPLES)
    examples = true.examples.copy()
    examples.loc[examples["checkpoint"] == "last", "rloss"] += 5
    assert np.array_equal(
        curves.rise(replace(true, examples=examples), "at", "test_rloss_pgd", "after-drop"), rise
    )


def test_sharpening_in_one_seed_of_five_is_not_enough(judge, true):
    changes = [0.5, -0.4, 0.1, -0.3, 0.05]
    verdict, found = judge(
        "overfitting-is-sharpening", per_seed(true, "series", "avg_flatness_rloss", changes)
    )
    assert verdict == claims.INCONCLUSIVE
    assert found[1].over == "seeds"
    alone, _ = judge(
        "overfitting-is-sharpening",
        only_seeds(per_seed(true, "series", "avg_flatness_rloss", changes), 1),
    )
    assert alone == claims.REPRODUCED


def test_the_control_shows_where_earlier_points_are_flatter_whether_or_not_they_are_better(judge, true):
    last = true.models[true.models["checkpoint"] == "last"].set_index(["variant", "seed"])

    def earlier(models):
        keys = pd.MultiIndex.from_frame(models[["variant", "seed"]])
        return last["avg_flatness_rloss"].reindex(keys).to_numpy() - 0.3 + 0.05 * noise(models)

    flatter = changed(true, lambda m: m["checkpoint"] == "best", avg_flatness_rloss=earlier)
    verdict, (alone, compared, *_) = judge("early-stopping-is-flat", flatter)
    assert alone.outcome == "holds"
    assert compared.outcome == "does not hold"
    assert verdict == claims.REPRODUCED


def test_a_small_group_of_small_variance_differs_significantly_from_a_large_one(spec):
    """Permuting the difference of means itself gives p > 0.1 here: most orders put a far value of the large
    group into the small one."""
    rng = np.random.default_rng(0)
    improved = np.arange(69) < 6
    values = np.where(improved, rng.normal(-0.08, 0.02, 69), rng.normal(0, 0.09, 69))
    found = difference_of_groups(values, improved, pd.Series([*map(str, range(69))]), spec)
    assert found.p < 0.01
    orders = np.random.default_rng(1).permuted(np.tile(values, (999, 1)), axis=1)
    raw = np.abs(orders[:, :6].mean(axis=1) - orders[:, 6:].mean(axis=1)) >= abs(found.value)
    assert raw.mean() > 0.01


def test_a_lower_loss_within_the_noise_of_the_evaluation_is_no_improvement(true):
    table = true.models.pivot_table(index="variant", columns="checkpoint", values="test_rloss_pgd")
    clearly = table.index[table["best"] < table["last"] - 0.05]
    improved = improved_by_early_stopping(true.examples, 0.95)
    assert len(clearly) > 10
    assert all(improved[slug] for slug in clearly)
    # The same means, of examples that vary more between the two checkpoints, no longer show it.
    examples = true.examples.copy()
    best = examples["checkpoint"] == "best"
    examples.loc[best, "rloss"] += np.random.default_rng(0).normal(0, 5, int(best.sum()))
    assert sum(improved_by_early_stopping(examples, 0.95).values()) < len(improved) / 5


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


def test_more_robust_compares_the_images_that_both_have(true):
    """Images that the baseline alone has, all of them wrong, change nothing."""
    examples = true.examples
    at = examples[examples["variant"].eq("at") & examples["checkpoint"].eq("last")]
    more = at.assign(example=at["example"] + 1000, rerr_pgd=1.0)
    both = pd.concat([examples, more], ignore_index=True)
    assert more_robust(both, "rerr_pgd") == more_robust(examples, "rerr_pgd")


def test_more_robust_allows_for_the_variance_over_the_baselines_seeds(true):
    """A seed of the baseline that is much better makes every advantage uncertain."""
    examples = true.examples.copy()
    assert sum(more_robust(examples, "rloss").values()) > 20
    lucky = examples["variant"].eq("at") & examples["seed"].eq(0)
    examples.loc[lucky, "rloss"] -= 10
    assert not any(more_robust(examples, "rloss").values())


def test_variants_whose_early_stopped_checkpoint_is_the_last_one_are_not_compared_with(true):
    models = true.models
    same = changed(
        true,
        lambda m: (m["checkpoint"] == "best") & (m["family"] == "adam"),
        test_rloss_pgd=models.loc[
            (models["checkpoint"] == "last") & (models["family"] == "adam"), "test_rloss_pgd"
        ].to_numpy(),
        avg_flatness_rloss=models.loc[
            (models["checkpoint"] == "last") & (models["family"] == "adam"), "avg_flatness_rloss"
        ].to_numpy(),
    )
    evidence = Evidence.of(same)
    pairs = early_stopping_pairs(evidence.models, evidence.series, "avg_flatness_rloss")
    assert set(pairs.loc[pairs["same"], "family"]) == {"adam"}


def test_robust_means_lower_rerr_and_a_lower_rloss_stands_beside_it(judge, true):
    """Variants flat and of low RLoss, but of higher RErr than the baseline: the claim says nothing of
    them."""
    robust = lambda m: m["family"].isin(made_up.ROBUST)  # noqa: E731
    verdict, (by_rerr, by_rloss) = judge("variants-are-flat", changed(true, robust, test_rerr_aa=99.0))
    assert verdict == claims.INCONCLUSIVE
    assert by_rerr.n == 0
    assert by_rloss.outcome == "holds"


def test_the_error_of_a_baseline_with_few_seeds_goes_by_students_t(judge, true):
    """Two seeds that differ by as much as the variants from them say nothing."""
    two = only_seeds(true, 2)
    at = lambda m: m["variant"] == "at"  # noqa: E731
    apart = changed(two, at, avg_flatness_rloss=lambda m: np.where(m["seed"] == 0, 0.8, 1.2))
    assert judge("variants-are-flat", only_seeds(true, 1))[0] == claims.REPRODUCED
    verdict, (found, _) = judge("variants-are-flat", apart)
    assert found.value < -0.5
    assert "2 seeds" in found.note
    assert verdict == claims.INCONCLUSIVE


CONCAVE = {
    "root": lambda x: 40 + 20 * np.sqrt(x - 1),
    "logarithm": lambda x: 40 + 25 * np.log(x),
    "parabola": lambda x: 80 - 4 * (x - 4.5) ** 2,
    "saturating": lambda x: 40 + 40 * (1 - np.exp(-(x - 1))),
    "elsewhere": lambda x: made_up.hinge(x, 3.3),
    "blunt": lambda x: made_up.hinge(x, LN_K, below=15, above=11),
}
OTHER = {
    "line": lambda x: 40 + 8 * x,
    "upwards": lambda x: made_up.hinge(x, LN_K, below=1, above=15),
}


@pytest.mark.parametrize("name", [*CONCAVE, *OTHER])
def test_only_a_sharp_bend_at_the_right_place_is_a_kink(judge, true, name):
    x = np.linspace(1.1, 4.4, len(true.models))[true.models["test_rloss_pgd"].rank().astype(int) - 1]
    y = (CONCAVE | OTHER)[name](x)
    models = true.models.assign(test_rloss_pgd=x, test_rerr_aa=y + 0.2 * noise(true.models))
    verdict, found = judge("rerr-kink", replace(true, models=models))
    assert verdict == claims.NOT_REPRODUCED, found
    # The difference of slopes at -ln(1/K) would have been enough for every concave cloud.
    below, above = (weighted_line(x, y, side[None].astype(float))[1][0] for side in (x < LN_K, x >= LN_K))
    assert (below - above > 1e-6) == (name in CONCAVE)


def test_a_hinge_is_found_where_it_is():
    rng = np.random.default_rng(0)
    x = rng.uniform(1, 4, 200)
    y = made_up.hinge(x, 2.5) + rng.normal(0, 0.1, 200)
    once = fit_hinge(x, y, np.ones((1, 200)))
    assert once.at[0] == pytest.approx(2.5, abs=0.05)
    assert once.below[0] == pytest.approx(15, abs=0.3)
    assert once.above[0] == pytest.approx(1, abs=0.3)
    # Counting a point twice is the same as having it twice.
    counts = rng.integers(1, 3, (1, 200))
    twice = fit_hinge(np.repeat(x, counts[0]), np.repeat(y, counts[0]), np.ones((1, counts.sum())))
    assert fit_hinge(x, y, counts).ratio[0] == pytest.approx(twice.ratio[0], abs=0.03)


def test_models_that_have_not_learnt_are_left_out_and_named(judge, true):
    """Guessing networks with absurd flatness would set the correlation alone."""
    stuck = changed(
        true,
        lambda m: m["variant"].isin(["adam-70", "cyclic-55"]),
        train_rerr_pgd=85.0,
        avg_flatness_rloss=3733.0,
    )
    verdict, found = judge("flat-is-robust", stuck)
    assert verdict == claims.REPRODUCED
    assert found[0].n == 74
    assert "not having learnt: adam-70, cyclic-55; with these: " in found[0].note


def test_the_distance_from_the_initial_weights_stands_beside_models_that_have_not_learnt(judge, true):
    distances = changed(true, distance_from_init=20.0)
    stuck = changed(
        distances, lambda m: m["variant"] == "adam-70", train_rerr_pgd=88.0, distance_from_init=2.0
    )
    _, found = judge("flat-is-robust", stuck)
    assert "adam-70 (10 %)" in found[0].note


def test_a_seed_that_has_not_learnt_is_left_out_and_named(judge, true):
    second = changed(true, lambda m: (m["variant"] == "at") & (m["seed"] == 1), train_rerr_pgd=85.0)
    verdict, found = judge("robust-overfitting", second)
    assert verdict == claims.REPRODUCED
    assert found[0].n == made_up.SEEDS - 1
    assert "not having learnt: at (seed 1)" in found[0].note
    _, found = judge("flat-is-robust", second)
    assert found[0].n == 76


def test_variants_that_are_one_model_count_once(judge, true):
    same = true.models["variant"].isin(["adam-71", "adam-72"])
    tables = replace(true, models=true.models.assign(same_as=np.where(same, "adam-70", "")))
    _, found = judge("flat-is-robust", tables)
    assert found[0].n == 74
    assert "counted once: adam-71 (the same model as adam-70), adam-72" in found[0].note


@pytest.mark.parametrize("path", ["claims.yaml", "later-claims.yaml"])
def test_an_experiment_in_which_next_to_nothing_has_learnt_reproduces_no_claim(true, path):
    columns = ("test_rerr_pgd_eps_0.25", "test_rerr_pgd_eps_2")
    stuck = changed(true, lambda m: m["variant"] != "at", train_rerr_pgd=90.0, **dict.fromkeys(columns, 1.0))
    judged = claims.judge(only_seeds(stuck, 1), true, repository() / "config" / path)
    verdicts = {claim.name: claim.verdict for claim in judged}
    for name in ("robust-overfitting", "overfitting-is-sharpening", "scale-invariant"):
        verdicts.pop(name, None)  # these are of the baseline alone
    assert {*verdicts.values()} <= {claims.NOT_TESTABLE, claims.INCONCLUSIVE}
