"""Each default stands once in the source."""

import ast
import importlib
import pkgutil
from pathlib import Path

import robust_flatness
from robust_flatness import measures
from robust_flatness.config.values import Spec
from robust_flatness.measures.flatness import AverageSettings, WorstSettings
from robust_flatness.measures.registry import MEASURES
from robust_flatness.measures.robustness import RobustnessSettings

SOURCE = Path(robust_flatness.__file__).parent
#: Numbers of the paper, which stay as printed whatever the defaults are.
PRINTED = "tables/printed.py"


def modules_with(number: float) -> set[str]:
    """Modules whose code has this number (docstrings are text)."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and node.value == number and type(node.value) is type(number):
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
    assert modules_with(WorstSettings().xi[0]) == {"measures/flatness.py"}
    assert modules_with(WorstSettings().xi[1]) == {"measures/flatness.py"}


def test_radii_and_samples_are_declared_once():
    assert settings_that_declare("xi") == {AverageSettings, WorstSettings}
    assert settings_that_declare("clean_samples") == {AverageSettings}
    assert settings_that_declare("weight_step") == {WorstSettings}
    assert {
        kind for kind in settings_that_declare("restarts") if kind.__module__ == AverageSettings.__module__
    } == {WorstSettings}


def test_measures_and_functions_take_the_defaults_from_there():
    import inspect

    from robust_flatness.flatness import average_flatness, worst_flatness

    average, worst = AverageSettings(), WorstSettings()
    for function, settings in ((average_flatness, average), (worst_flatness, worst)):
        parameters = inspect.signature(function).parameters
        assert parameters["xi"].default == settings.xi[0]
        for name in {"samples", "steps", "restarts", "weight_step", "batch_size", "scope"} & {*parameters}:
            assert parameters[name].default == getattr(settings, name)
    fields = [entry.settings.model_fields for entry in MEASURES.values()]
    assert all(own["average"].default.samples == average.samples for own in fields if "average" in own)
    assert all(own["worst"].default.restarts == worst.restarts for own in fields if "worst" in own)
    assert RobustnessSettings.model_fields["attack"].default.restarts == 10
