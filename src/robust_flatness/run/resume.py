"""Locks of running jobs, and the store of finished parts from which a measuring job resumes.

A workflow deletes a job's declared outputs before it runs the job again, so its state lies in a folder
`.resume` beside them, with a fingerprint of everything that the result depends on.
"""

import contextlib
import errno
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock

from robust_flatness.files import canonical_json, write_text
from robust_flatness.runtime.state import differing, fingerprint

#: Error numbers of flock(2) on file systems that do not implement it (some Lustre, NFS and FUSE mounts).
NO_FLOCK = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
#: Seconds between two attempts to acquire a lock.
POLL = 0.2
Report = Callable[[str], None]


@contextlib.contextmanager
def locked(folder: Path, waiting: str, report: Report) -> Iterator[None]:
    """Hold the lock of `folder`; report `waiting` if another process holds it, and wait for that process. The
    kernel releases the lock when its holder ends. File systems without flock get a lock file instead."""
    folder.mkdir(parents=True, exist_ok=True)
    native = filelock.FileLock(folder / "lock", poll_interval=POLL, fallback_to_soft=False)
    for lock in (native, filelock.SoftFileLock(folder / "lock-file", poll_interval=POLL)):
        try:
            lock.acquire(blocking=False)
            break
        except filelock.Timeout:
            report(f"{folder.parent}: {waiting}; waiting for it to end")
            lock.acquire()
            break
        except OSError as error:
            if error.errno not in NO_FLOCK:
                raise
            note = "delete lock-file in it if it is left by a process killed on another machine"
            report(f"note: {folder}: no flock on this file system ({error.strerror}); {note}")
    try:
        yield
    finally:
        lock.release()


class Parts:
    """Finished parts of a measuring job, appended to the file `path` one by one; use it inside `locked`. Each
    line is a JSON object with `name`, `fingerprint` and `value`. Lines cut short by a kill are ignored; of
    several lines with a name, the last counts."""

    def __init__(self, path: Path, report: Report):
        self.path, self.report = Path(path), report
        self.parts: dict[str, dict[str, Any]] = {}
        self.used: set[str] = set()
        for line in self.path.read_bytes().splitlines() if self.path.exists() else ():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                part = json.loads(line)
                self.parts[part["name"]] = part

    def get(self, name: str, components: Mapping[str, Any], compute: Callable[[], Any]) -> Any:
        """Return the stored value of part `name` if its fingerprint is that of `components`, else
        `compute()`, which is stored, as a JSON value with sorted keys."""
        current, stored = fingerprint(components), self.parts.get(name)
        changed = differing(stored["fingerprint"], current) if stored else ""
        if changed:
            self.report(f"{name}: computed again, as these have changed: {changed}")
        elif stored and name not in self.used:
            self.report(f"{name}: taken from an earlier run")
        if changed or not stored:
            line = canonical_json({"name": name, "fingerprint": current, "value": compute()})
            self.parts[name] = json.loads(line)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(f"\n{line}")  # not after a line cut short
        self.used.add(name)
        return self.parts[name]["value"]

    def prune(self) -> None:
        """Rewrite the file atomically with the parts returned by `get`; remove the states of AutoAttack."""
        used = [canonical_json(part) for name, part in self.parts.items() if name in self.used]
        write_text(self.path, "\n".join(used))
        for path in self.path.parent.glob("autoattack-*"):
            path.unlink()
