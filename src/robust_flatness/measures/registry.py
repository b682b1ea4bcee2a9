"""Registry of the measures, `MEASURES`, which configuration, command line, workflow and tables use.
To add one, write a file beside this one that defines `MEASURE`, and add its name to `MODULES`."""

from importlib import import_module
from typing import Any

from pydantic import create_model

from robust_flatness.config.values import Spec
from robust_flatness.measures.base import Measure

#: Modules of this package that define a measure, in the order of the tables.
MODULES = (
    "robustness", "flatness", "hessian", "landscape", "series", "sharpness.block", "other_radii", "layers",
    "curvature", "density", "plane",
)  # fmt: skip
_ENTRIES: list[Measure] = [import_module(f"robust_flatness.measures.{name}").MEASURE for name in MODULES]
MEASURES = {entry.name: entry for entry in _ENTRIES}

#: The block `measures` of an experiment: the settings of each measure (None: not measured).
MeasureSpecs: Any = create_model(
    "MeasureSpecs", __base__=Spec, **{name: (entry.settings | None, None) for name, entry in MEASURES.items()}
)
