"""Atomic writing of files: under a temporary name, which is then renamed."""

import contextlib
import errno
import json
import math
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from robust_flatness.errors import ConfigError


@contextlib.contextmanager
def atomic_path(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which is renamed to `path` if the block succeeds, else removed.

    With `durable`, data is flushed to disk before the rename, so that the file is complete even after a power
    failure; without, only if the process is killed. Errors of the block, such as a full disk, name `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    # not tempfile: its permissions ignore the umask, and some file systems have no chmod
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        with naming(path, temporary):
            yield temporary
            if durable:
                with open(temporary, "rb+") as file:
                    os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def naming(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Name `path` in OSErrors of the block that name no file, or the `temporary` one."""
    try:
        yield
    except OSError as error:
        if str(error.filename) not in ("None", str(temporary)):
            raise
        reason = error.strerror or str(error)
        raise OSError(error.errno or errno.EIO, reason, str(path)) from error


def require_space(folder: Path, needed: int, what: str) -> None:
    """Raise ConfigError if fewer than `needed` bytes are free on the disk of `folder`, which is created."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ConfigError(
            f"{folder}: {what} needs {needed / 1e6:.0f} MB of disk, and {free / 1e6:.0f} MB are free; "
            "make room, or run in another folder (snakemake --directory)"
        )


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write `text` to `path` atomically."""
    with atomic_path(path, durable=durable) as temporary:
        temporary.write_text(text, encoding="utf-8")


def canonical_json(value: Any) -> str:
    """Return `value` as JSON with sorted keys and no blanks: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def portable(value: Any) -> Any:
    """`value` with words, "nan", "inf" and "-inf", for the numbers that JSON does not have.

    >>> portable({"a": [1.5, math.nan]}), restored(portable([-math.inf, "word"]))
    ({'a': [1.5, 'nan']}, [-inf, 'word'])
    """
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return _each(value, portable)


def restored(value: Any) -> Any:
    """What `portable` was given."""
    if isinstance(value, str) and value in ("nan", "inf", "-inf"):
        return float(value)
    return _each(value, restored)


def _each(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, Mapping):
        return {key: change(part) for key, part in value.items()}
    return [change(part) for part in value] if isinstance(value, list | tuple) else value


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Write `value` as indented JSON with sorted keys, atomically."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n", durable=durable)
