"""Networks by name, and functions imported by `package.module:name`.

Planning needs the names of the networks and a few constants without torch, so their files are read here, not
imported.
"""

import ast
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from robust_flatness.config.architectures import COSTS
from robust_flatness.errors import ConfigError

NETWORKS = "architectures"
PACKAGE = Path(__file__).parents[1]


@cache
def names(kind: str) -> tuple[str, ...]:
    """Return the names of a kind, such as `names(NETWORKS)`."""
    if kind == NETWORKS:
        return tuple(sorted(COSTS))
    stems = {path.stem for path in (PACKAGE / kind).glob("*.py")} - {"__init__", "base"}
    return tuple(sorted(stem.replace("_", "-") for stem in stems))


@cache
def declared(kind: str, name: str, constant: str, otherwise: Any = ()) -> Any:
    """Return a constant assigned at the top of the file of `name`, such as the cost of a forward pass."""
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


def check_name(allowed: Collection[str], name: str, own: str = "") -> str:
    """Require one of the `allowed` names, or, if `own` describes it, a `package.module:name` of the user's."""
    module, colon, function = name.partition(":")
    if own and colon and module and function.isidentifier():
        return name
    if name not in allowed:
        raise ValueError(
            f"Input should be one of {', '.join(map(repr, allowed))}"
            + (f", or {own} of your own" if own else "")
        )
    return name


def source_digest(paths: Iterable[str]) -> str:
    """Return a digest of the source of the user's functions `package.module:name`, and of what their modules import from
    the folder of the first one's package; empty without functions."""
    digest = hashlib.sha256()
    paths = sorted(paths)
    for path in paths:
        module = importlib.util.find_spec(path.partition(":")[0])
        folder = Path(module.origin).parent
        for file in (
            sorted(folder.rglob("*.py")) if module.submodule_search_locations else [Path(module.origin)]
        ):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16] if paths else ""
