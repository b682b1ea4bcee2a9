"""Registry of the measures, `MEASURES`, which configuration, command line, workflow and tables use.

To add one, write a file beside this one that defines `MEASURE`, and add its name to the import and the list.
"""

from typing import Any

from pydantic import create_model

from robust_flatness.config.values import Spec
from robust_flatness.measures import (
    curvature,
    density,
    flatness,
    hessian,
    landscape,
    layers,
    other_radii,
    plane,
    robustness,
    series,
)
from robust_flatness.measures.base import Measure
from robust_flatness.measures.sharpness import block as sharpness

MODULES = (
    robustness, flatness, hessian, landscape, series, sharpness, other_radii, layers, curvature, density,
    plane,
)  # fmt: skip
MEASURES: dict[str, Measure] = {module.MEASURE.name: module.MEASURE for module in MODULES}

#: The block `measures` of an experiment: the settings of each measure (None: not measured).
MeasureSpecs: Any = create_model(
    "MeasureSpecs", __base__=Spec, **{name: (entry.settings | None, None) for name, entry in MEASURES.items()}
)
