"""Contours of the loss on a plane."""

import math
from itertools import product

import pandas as pd
import pytest

from robust_flatness.measures.base import Record
from robust_flatness.plotting.planes import figure


def records(path=()):
    """A paraboloid on a grid of 5 x 3, and a path in the order of its epochs, shuffled."""
    found = [
        Record("plane", scale * (a**2 + b**2), loss=loss, coordinate=f"{a},{b}")
        for (loss, scale), a, b in product((("ce", 1), ("rloss", 3)), (-2, -1, 0, 1, 2), (-1, 0, 1))
    ]
    found += [Record("path", epoch, coordinate=f"{a},{b}") for epoch, (a, b) in reversed([*enumerate(path)])]
    found += [Record("explained", 0.75, coordinate="a"), Record("explained", 0.2, coordinate="b")]
    return pd.DataFrame([{"measure": "plane"} | record._asdict() for record in found])


def test_both_losses_of_each_network_are_drawn_with_the_path_to_its_weights():
    path = [(2.0, 0.5), (1.0, -0.5), (0.5, 0.0)]
    drawn = figure({"first": records(path), "second": records()})
    panels = {axes.get_title(loc="left"): axes for axes in drawn.axes if axes.get_title(loc="left")}
    assert [*panels] == ["first: CE", "first: RLoss", "second: CE", "second: RLoss"]
    for (title, axes), high in zip(panels.items(), (5, 15, 5, 15), strict=True):
        assert (axes.get_xlim(), axes.get_ylim()) == ((-2, 2), (-1, 1))
        assert axes.collections[0].get_clim() == pytest.approx((0, high))
        *before, weights = [line.get_xydata().tolist() for line in axes.lines]
        assert weights == [[0, 0]]
        assert before == ([[*map(list, path), [0, 0]]] if "first" in title else [])
    assert panels["first: CE"].get_xlabel() == "a (75% of the variance)"


def test_a_loss_of_nan_leaves_the_others_their_levels():
    lacking = records()
    lacking.loc[0, "value"] = math.nan
    assert figure({"mine": lacking}).axes[0].collections[0].get_clim() == pytest.approx((0, 5))
