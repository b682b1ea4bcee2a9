"""Each default stands once in the source."""

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path

import robust_flatness
from robust_flatness import measures
from robust_flatness.config.values import Spec
from robust_flatness.flatness import average_flatness, worst_flatness
from robust_flatness.measures.flatness import AverageSettings, WorstSettings
from robust_flatness.measures.registry import MEASURES

SOURCE = Path(robust_flatness.__file__).parent
#: Numbers of the paper, which stay as printed whatever the defaults are.
PRINTED = "tables/printed.py"
AVERAGE, WORST = AverageSettings(), WorstSettings()


def modules_with(number: float) -> set[str]:
    """Modules whose code has this number (docstrings are text)."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if any(isinstance(node, ast.Constant) and node.value == number for node in nodes):
            found.add(str(path.relative_to(SOURCE)))
    return found - {PRINTED}


def settings_that_declare(field: str) -> set[type]:
    """Settings of measures with a default of their own for a field."""
    for module in pkgutil.walk_packages(measures.__path__, f"{measures.__name__}."):
        importlib.import_module(module.name)
    types, found = [Spec], set()
    while types:
        kind = types.pop()
        types += kind.__subclasses__()
        if kind.__module__.startswith(measures.__name__) and field in vars(kind).get("__annotations__", {}):
            found.add(kind)
    return found


def test_radii_of_worst_case_flatness_stand_in_one_module():
    assert modules_with(WORST.xi[0]) == modules_with(WORST.xi[1]) == {"measures/flatness.py"}


def test_radii_samples_and_restarts_are_declared_once():
    assert settings_that_declare("xi") == {AverageSettings, WorstSettings}
    assert settings_that_declare("clean_samples") == {AverageSettings}
    assert settings_that_declare("restarts") == settings_that_declare("weight_step") == {WorstSettings}


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
