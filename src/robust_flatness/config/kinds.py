"""Networks are known by the names of their files.

Planning needs the names, and a few constants at the top of such a file, but not the file's torch; so files
are listed and read here, not imported.
"""

import ast
import importlib
import sys
from collections.abc import Collection
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from robust_flatness.config.architectures import COSTS
from robust_flatness.errors import ConfigError

NETWORKS = "architectures"
#: Files of such a folder that are none of its kind.
SHARED = ("__init__", "base")

_PACKAGE = Path(__file__).parents[1]


@cache
def names(kind: str) -> tuple[str, ...]:
    """The names of a kind, e.g. `names(NETWORKS)`."""
    if kind == NETWORKS:
        return tuple(sorted(COSTS))
    found = sorted(path.stem for path in (_PACKAGE / kind).glob("*.py"))
    return tuple(stem.replace("_", "-") for stem in found if stem not in SHARED)


@cache
def declared(kind: str, name: str, constant: str, otherwise: Any = ()) -> Any:
    """A constant at the top of the file of `name`, e.g. the cost of a forward pass."""
    path = _PACKAGE / kind / f"{name.replace('-', '_')}.py"
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and [ast.unparse(to) for to in statement.targets] == [constant]:
            return ast.literal_eval(statement.value)
    return otherwise


def load(kind: str, name: str) -> ModuleType:
    """The module of `name`."""
    folder = kind.replace("/", ".")
    return importlib.import_module(f"robust_flatness.{folder}.{name.replace('-', '_')}")


def imported(path: str, where: str) -> Any:
    """What `package.module:name` names; modules in the working directory are found, too, from here on:
    what is imported may import others when it is called.

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


def check_name(allowed: Collection[str], name: str, own: str = "") -> str:
    """`name` if it is one of `allowed`, or, where `own` says what, a `package.module:...` of one's own."""
    module, colon, function = name.partition(":")
    if own and colon and module and function.isidentifier():
        return name
    if name not in allowed:
        raise ValueError(
            f"Input should be one of {', '.join(map(repr, allowed))}"
            + (f", or {own} of your own" if own else "")
        )
    return name
