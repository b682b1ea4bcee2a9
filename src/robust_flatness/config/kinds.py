"""Objectives, optimisers and networks by name, and functions imported by `package.module:name`.

A new one is a file in the folder of its kind: `training/objectives/my_loss.py` is `objective: my-loss`.
Planning needs the names and a few constants without torch, so the files are read here, not imported.
"""

import ast
import importlib
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from robust_flatness.config.architectures import COSTS
from robust_flatness.errors import ConfigError

OBJECTIVES, OPTIMIZERS, NETWORKS = "training/objectives", "training/optimizers", "architectures"
PACKAGE = Path(__file__).parents[1]


@cache
def names(kind: str) -> tuple[str, ...]:
    """Return the names of a kind, such as `names(OPTIMIZERS)`.

    >>> names(OPTIMIZERS)
    ('adam', 'entropy-sgd', 'sgd')
    """
    if kind == NETWORKS:
        return tuple(sorted(COSTS))
    stems = {path.stem for path in (PACKAGE / kind).glob("*.py")} - {"__init__", "base"}
    return tuple(sorted(stem.replace("_", "-") for stem in stems))


@cache
def declared(kind: str, name: str, constant: str, otherwise: Any = ()) -> Any:
    """Return a constant assigned at the top of the file of `name`.

    >>> declared(OPTIMIZERS, "entropy-sgd", "REFUSES")
    ('momentum',)
    """
    path = PACKAGE / kind / f"{name.replace('-', '_')}.py"
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and [ast.unparse(to) for to in statement.targets] == [constant]:
            return ast.literal_eval(statement.value)
    return otherwise


def load(kind: str, name: str) -> ModuleType:
    """Import the module of `name`."""
    return importlib.import_module(f"robust_flatness.{kind.replace('/', '.')}.{name.replace('-', '_')}")


def imported(path: str, where: str) -> Any:
    """Return the object that `package.module:name` names, with the working directory on Python's path.

    Raises
    ------
    ConfigError
        If it cannot be imported; the message begins with `where`.
    """
    module, _, name = path.partition(":")
    here = str(Path.cwd())
    if not {here, ""} & set(sys.path):
        sys.path.insert(0, here)
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {path!r} cannot be imported ({error})") from None


def check_name(kind: str, name: str, own: str = "") -> str:
    """Require a name of its kind, or, if `own` describes it, a `package.module:name` of the user's."""
    module, colon, function = name.partition(":")
    if own and colon and module and function.isidentifier():
        return name
    if name not in names(kind):
        allowed = ", ".join(map(repr, names(kind)))
        raise ValueError(f"Input should be one of {allowed}" + (f", or {own} of your own" if own else ""))
    return name
