"""Groups of variants by robust error."""

from robust_flatness.analysis.grouping import robustness_groups, with_groups
from robust_flatness.tables import aggregate, printed


def test_percentiles_are_of_the_variants_no_worse_than_the_baseline():
    rerr = [*range(10, 21), 30.0, 40.0]
    groups = robustness_groups(rerr, baseline=20)
    assert groups == ["good"] * 4 + ["average"] * 4 + ["poor"] * 3 + ["worse"] * 2


def test_published_groups_are_as_printed():
    variants = with_groups(aggregate.variants_at(printed.read_published().models))
    groups = printed.read_printed("variants").set_index("variant")["robustness_group"]
    assert (variants.set_index("variant")["group"] == groups).all()


def test_groups_are_computed_where_none_are_printed():
    variants = aggregate.variants_at(printed.read_published().models).assign(robustness_group="")
    groups = with_groups(variants).set_index("variant")["group"]
    assert groups["at"] == "poor"
    assert groups["unlabeled"] == "good"
    assert groups["constant-learning-rate-0.005"] == "worse"
    within = groups[groups != "worse"]
    assert abs((within == "good").mean() - 0.3) < 0.05
