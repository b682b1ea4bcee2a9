"""User-defined functions and classes, named by `package.module:name`."""

import ast
import contextlib
import hashlib
import importlib
import os
import sys
from collections.abc import Iterable, Iterator
from importlib.machinery import PathFinder
from importlib.util import resolve_name
from pathlib import Path
from typing import Any

from robust_flatness.errors import ConfigError

#: Packages that `source_files` does not follow.
NOT_FOLLOWED = ("robust_flatness", "robustbench", "torchvision")


def imported(path: str, where: str, base: str = "") -> Any:
    """Return the function that `package.module:name` names, or the class, which must be a subclass of `base`
    if that is given; the working directory is on Python's path."""
    module, _, name = path.partition(":")
    here = str(Path.cwd())
    if not {here, ""} & set(sys.path):
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # whatever the module raises
        raise ConfigError(f"{where}: {path!r} cannot be imported ({error!r})") from error
    if base and not (isinstance(found, type) and issubclass(found, imported(base, where))):
        raise ConfigError(f"{where}: {path!r} is not a subclass of {base}")
    if not callable(found):
        raise ConfigError(f"{where}: {path!r} is of type {type(found).__name__}; expected a function")
    return found


def source_files(path: str) -> list[Path]:
    """Return the source files of a user's `package.module:name`, without importing them: its module and those
    that it imports, directly or indirectly, from the same folder or from a folder in it, which it may put on
    Python's path (for an installed package, from itself). Empty for what the kit, torchvision, RobustBench or
    the standard library define, and if there is no such module."""
    wanted, colon, _ = path.partition(":")
    if not colon:
        return []
    spec = PathFinder.find_spec(wanted.partition(".")[0], [str(Path.cwd()), *sys.path])
    if spec is None:
        return []
    package = spec.submodule_search_locations
    root = Path(next(iter(package)) if package else spec.origin).parent
    if root == Path(ast.__file__).parent:
        return []
    installed = root.name in ("site-packages", "dist-packages")
    folders = [root] if installed else [root, *sorted(root.glob("[!.]*/"))]
    files, seen, pending = set(), set(), [wanted]
    while pending:
        name = pending.pop()
        first, inside = name.partition(".")[0], Path(*name.split("."))
        if name in seen or first in NOT_FOLLOWED or (installed and first != spec.name):
            continue
        seen.add(name)
        places = (folder / place for folder in folders for place in (inside / "__init__.py", f"{inside}.py"))
        for file in filter(os.path.isfile, places):  # also in folders that may not be searched
            files.add(file)
            pending += [name.rpartition(".")[0]] if "." in name else []
            pending += _imports(file, name)
    return sorted(files)


def _imports(file: Path, name: str) -> Iterator[str]:
    """Yield the names of the modules that the module `name` may import; some may be functions."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # reported where the module is imported
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            with contextlib.suppress(ImportError):  # a relative import outside a package fails there
                base = resolve_name("." * node.level + (node.module or ""), package)
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (given.value for given in node.args[:1] if isinstance(given, ast.Constant))


def source_digest(paths: Iterable[str]) -> str:
    """Return a digest of the `source_files` of user-defined functions; without functions, an empty string.
    Names without a colon, such as those of the kit's objectives, count as none."""
    digest, paths = hashlib.sha256(), sorted(path for path in paths if ":" in path)
    for path in paths:
        for file in source_files(path):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16] if paths else ""
