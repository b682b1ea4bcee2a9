"""What an interrupted measuring job has finished."""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from robust_flatness.files import canonical_json, write_json
from robust_flatness.run.resume import Report, locked
from robust_flatness.runtime.provenance import source_digest


class Unfinished:
    """Finished parts (a checkpoint's measure, a snapshot's row) of one measuring job in `folder`.

    <folder>/<key>/<part>.json  parts of the job with this fingerprint, each kept once it is measured

    `identity` is all that the job's result depends on, but for the package's source, which is added.
    A job that is run again takes its parts from there, also one that was finished but whose end the
    workflow did not see. Parts stay until another job takes their place.
    """

    def __init__(self, folder: Path, identity: Any, report: Report = print):
        self.folder = Path(folder)
        self.fingerprint = hashlib.sha256(canonical_json([identity, source_digest()]).encode()).hexdigest()
        self.parts = self.folder / self.fingerprint[:16]
        self.report = report

    @contextlib.contextmanager
    def locked(self, outputs: Iterable[Path]) -> Iterator[bool]:
        """Hold the lock; files beside the parts (in `parts`) are removed when the block succeeds."""
        with locked(self.folder, "another process is measuring this", self.report):
            self._clean(list(outputs))
            yield True
            for path in self.parts.iterdir() if self.parts.exists() else ():
                if path.suffix != ".json":
                    path.unlink()

    def get(self, name: str, compute: Callable[[], Any]) -> Any:
        """The part `name`: as it was kept, or computed and kept. Values are JSON's, keys sorted."""
        path = self.parts / f"{name}.json"
        if _kept(path) is not None:
            self.report(f"{name}: taken from an earlier run")
        return kept(path, compute)

    def _clean(self, outputs: list[Path]) -> None:
        """Remove the parts of other jobs and what killed writers left."""
        for path in self.folder.iterdir():
            if path.is_dir() and path != self.parts:
                shutil.rmtree(path, ignore_errors=True)
        for path in outputs:
            for leftover in path.parent.glob(f".{path.name}.*.tmp"):
                leftover.unlink(missing_ok=True)


def kept(path: Path | None, compute: Callable[[], Any]) -> Any:
    """What `path` holds of an interrupted run, or what `compute` gives, kept there. Values are JSON's, keys
    sorted. Without a path nothing is kept."""
    if path is None:
        return compute()
    part = _kept(path)
    if part is None:
        part = json.loads(canonical_json(compute()))
        write_json(path, {"part": part, "sha256": _digest(part)}, durable=False)
    return part


def _kept(path: Path) -> Any:
    """A part that is whole; None if there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return content["part"] if content["sha256"] == _digest(content["part"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _digest(part: Any) -> str:
    return hashlib.sha256(canonical_json(part).encode()).hexdigest()
