"""Defaults of the measures: the functions of the library and other measures take them from one place."""

import inspect

from robust_flatness.flatness import average_flatness, worst_flatness
from robust_flatness.measures.flatness import AVERAGE, WORST
from robust_flatness.measures.registry import MEASURES


def test_other_measures_and_the_functions_take_them_from_there():
    for function, settings in ((average_flatness, AVERAGE), (worst_flatness, WORST)):
        parameters = inspect.signature(function).parameters
        assert parameters["xi"].default == settings.xi[0]
        for name in {"samples", "steps", "restarts", "weight_step", "batch_size", "scope"} & {*parameters}:
            assert parameters[name].default == getattr(settings, name)
    for entry in MEASURES.values():
        for name, settings in (("average", AVERAGE), ("worst", WORST)):
            field = entry.settings.model_fields.get(name)
            if field and field.default is not None:
                assert set(field.default.xi) <= set(settings.xi)
                assert field.default.model_copy(update={"xi": settings.xi}) == settings
