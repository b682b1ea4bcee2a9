"""What an interrupted measuring job has finished, kept outside of its declared outputs.

A workflow deletes a job's declared outputs before it runs the job again, so nothing that must
survive lies among them. Each part of a job (a checkpoint's measure, a snapshot's row) is kept as
soon as it is measured; a job that is run again takes it from there, also one that was finished but
whose end the workflow did not see. Parts stay until another job takes their place.

    <folder>/lock       held by the process that is measuring
    <folder>/finished   fingerprint of the job that was done last
    <folder>/<key>/     parts of the job with this fingerprint
"""

import contextlib
import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from robust_flatness.files import canonical_json, write_json, write_text
from robust_flatness.provenance import source_digest


class Unfinished:
    """Finished parts of one job in `folder`; `identity` is all that its result depends on, but for
    the package's source, which is added."""

    def __init__(self, folder: Path, identity: Any, report: Callable[[str], None] = print):
        self.folder = Path(folder)
        self.fingerprint = hashlib.sha256(canonical_json([identity, source_digest()]).encode()).hexdigest()
        self.parts = self.folder / self.fingerprint[:16]
        self.report = report

    @contextlib.contextmanager
    def locked(self, outputs: Iterable[Path]) -> Iterator[bool]:
        """Hold the lock; yields False where nothing is left to do.

        A killed workflow leaves its jobs running. If such a process holds the lock it is waited
        for; if it has then written the `outputs` of this very job, there is nothing left to do.
        The kernel frees the lock when its holder ends, however it ends. What a measure keeps beside
        the parts (`parts` is its folder too) is removed when the block succeeds.
        """
        outputs = [Path(path) for path in outputs]
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.report(f"{self.folder}: another process is measuring this; waiting for it to end")
                fcntl.flock(file, fcntl.LOCK_EX)
                if self._is_finished() and all(path.exists() for path in outputs):
                    self.report(f"{self.folder}: that process has finished the same job; nothing left to do")
                    yield False
                    return
            self._clean(outputs)
            yield True
            write_text(self.folder / "finished", self.fingerprint)
            for path in self.parts.iterdir() if self.parts.exists() else ():
                if path.suffix != ".json":
                    path.unlink()

    def get(self, name: str, compute: Callable[[], Any]) -> Any:
        """The part `name`: as it was kept, or computed and kept. Values are JSON's, keys sorted."""
        path = self.parts / f"{name}.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["sha256"] == _digest(content["part"]):
                self.report(f"{name}: taken from the interrupted run")
                return content["part"]
        except (OSError, ValueError, KeyError, TypeError):
            pass
        part = json.loads(canonical_json(compute()))
        write_json(path, {"part": part, "sha256": _digest(part)}, durable=False)
        return part

    def _is_finished(self) -> bool:
        try:
            return (self.folder / "finished").read_text(encoding="utf-8") == self.fingerprint
        except OSError:
            return False

    def _clean(self, outputs: list[Path]) -> None:
        """Remove the parts of other jobs and what killed writers left."""
        for path in self.folder.iterdir():
            if path.is_dir() and path != self.parts:
                shutil.rmtree(path, ignore_errors=True)
        for path in (*outputs, self.folder / "finished"):
            for leftover in path.parent.glob(f".{path.name}.*.tmp"):
                leftover.unlink(missing_ok=True)


def _digest(part: Any) -> str:
    return hashlib.sha256(canonical_json(part).encode()).hexdigest()
