"""The measures: what is not in this list does not exist for config, command line, workflow and tables.

A new one is a file beside this with a `MEASURE`, and its name in the list.
"""

from typing import Any

from pydantic import create_model

from robust_flatness.config.values import Spec
from robust_flatness.measuring import (
    flatness,
    hessian,
    landscape,
    layers,
    other_radii,
    robustness,
    series,
    sharpness,
)
from robust_flatness.measuring.base import CHECKPOINTS, Measure, Measured

__all__ = ["CHECKPOINTS", "MEASURES", "Measure", "MeasureSpecs", "Measured"]

MEASURES: dict[str, Measure] = {
    module.MEASURE.name: module.MEASURE
    for module in (robustness, flatness, hessian, landscape, series, sharpness, other_radii, layers)
}

#: The block `measures` of an experiment: the settings of each measure, None for what is not measured.
MeasureSpecs: Any = create_model(
    "MeasureSpecs", __base__=Spec, **{name: (entry.spec | None, None) for name, entry in MEASURES.items()}
)
