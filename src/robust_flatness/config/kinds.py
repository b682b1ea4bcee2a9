"""User-defined functions and classes, named by `package.module:name`."""

import hashlib
import importlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from robust_flatness.errors import ConfigError


def imported(path: str, where: str) -> Any:
    """Return the object that `package.module:name` names, with the working directory on Python's path."""
    module, _, name = path.partition(":")
    here = str(Path.cwd())
    if not {here, ""} & set(sys.path):
        sys.path.insert(0, here)
    try:
        return getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # whatever the module raises
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{where}: {path!r} cannot be imported ({reason})") from error


def source_digest(paths: Iterable[str]) -> str:
    """Return a digest of the source of user-defined functions: of their modules or, for a module of a
    package, of all files of the package. Without functions, it is an empty string."""
    digest, paths = hashlib.sha256(), sorted(paths)
    for path in paths:
        imported(path, path)
        file = Path(sys.modules[path.partition(":")[0]].__file__)
        packaged = (file.parent / "__init__.py").exists()
        for source in sorted(file.parent.rglob("*.py")) if packaged else [file]:
            digest.update(source.read_bytes())
    return digest.hexdigest()[:16] if paths else ""
