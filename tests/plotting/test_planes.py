"""Contours of the loss on a plane."""

import numpy as np
import pandas as pd
import pytest

from robust_flatness.measures.base import Record
from robust_flatness.plotting.planes import figure


def records(path=()):
    """A paraboloid on a grid of 5 x 3, and a path in the order of its epochs, shuffled."""
    found = [
        Record("plane", scale * (a**2 + b**2), loss=loss, coordinate=f"{a},{b}")
        for loss, scale in (("ce", 1.0), ("rloss", 3.0))
        for a in np.linspace(-2, 2, 5)
        for b in np.linspace(-1, 1, 3)
    ]
    found += [Record("path", epoch, coordinate=f"{a},{b}") for epoch, (a, b) in reversed([*enumerate(path)])]
    found += [
        Record("explained", share, coordinate=axis)
        for axis, share in zip("ab", (0.75, 0.2), strict=True)
        if path
    ]
    return pd.DataFrame([{"measure": "plane"} | record._asdict() for record in found])


def test_both_losses_of_each_network_are_drawn_with_the_path_to_its_weights():
    path = [(2.0, 0.5), (1.0, -0.5), (0.5, 0.0)]
    drawn = figure({"first": records(path), "second": records()})
    panels = [axes for axes in drawn.axes if axes.get_title(loc="left")]
    assert [axes.get_title(loc="left") for axes in panels] == [
        f"{name}: {loss}" for name in ("first", "second") for loss in ("CE", "RLoss")
    ]
    for axes, high in zip(panels, (5, 15, 5, 15), strict=True):
        assert (axes.get_xlim(), axes.get_ylim()) == ((-2, 2), (-1, 1))
        assert axes.collections[0].get_clim() == pytest.approx((0, high))
        lines = [line.get_xydata().tolist() for line in axes.lines]
        assert lines[-1] == [[0, 0]]
        assert lines[:-1] == ([[*map(list, path), [0, 0]]] if axes in panels[:2] else [])
    assert panels[0].get_xlabel() == "a (75% of the variance)"
