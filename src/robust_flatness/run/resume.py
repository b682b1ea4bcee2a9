"""State that lets interrupted jobs resume: locks, trainings, and the finished parts of a measuring job.

A workflow deletes a job's declared outputs before it runs the job again, so the state lies in a folder
`.resume` beside them. It carries checksums and a fingerprint of everything that the result depends on.
Damaged state, and state with another fingerprint, is reported and replaced.
"""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock

from robust_flatness.checkpoints import load_checkpoint
from robust_flatness.errors import FileError
from robust_flatness.files import atomic_path, canonical_json, write_text
from robust_flatness.runtime.state import StateFile, differing, digest, fingerprint
from robust_flatness.training.history import best_epoch

#: Error numbers of flock(2) on file systems that do not implement it.
NO_FLOCK = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
#: Seconds between two attempts to acquire a lock.
POLL = 0.2
Report = Callable[[str], None]


@contextlib.contextmanager
def locked(folder: Path, waiting: str, report: Report) -> Iterator[None]:
    """Hold the lock of `folder`; report `waiting` if another process holds it, and wait for that process. The
    kernel releases the lock when its holder ends. File systems without flock (some Lustre, NFS and FUSE
    mounts) get a lock file instead."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / "lock", poll_interval=POLL, fallback_to_soft=False)
    try:
        _acquire(lock, folder, waiting, report)
    except OSError as error:
        if error.errno not in NO_FLOCK:
            raise
        lock = filelock.SoftFileLock(folder / "lock-file", poll_interval=POLL)
        note = "delete lock-file in it if it is left by a process killed on another machine"
        report(f"note: {folder}: no flock on this file system ({error.strerror}); {note}")
        _acquire(lock, folder, waiting, report)
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: filelock.BaseFileLock, folder: Path, waiting: str, report: Report) -> None:
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        report(f"{folder.parent}: {waiting}; waiting for it to end")
        lock.acquire()


class TrainingStore:
    """State and snapshots of the training in `directory`; use it inside `locked`.

    `.resume/state` holds weights, optimiser and history as of the last finished epoch, or the history alone
    once the training is published; `.resume/checkpoints/` its snapshots, the published ones being links.
    `epochs` are those of the snapshots. Without `all_snapshots`, only the best and the last are kept.
    """

    def __init__(
        self, directory: Path, components: Mapping, epochs: Iterable, all_snapshots: bool, report: Report
    ):
        self.directory, self.folder = Path(directory), Path(directory) / ".resume"
        self.state = StateFile(self.folder / "state", components)
        self.snapshots = self.folder / "checkpoints"
        self.epochs, self.all_snapshots, self.report = sorted(epochs), all_snapshots, report

    def snapshot(self, epoch: int) -> Path:
        """Return the path of the snapshot after `epoch`."""
        return self.snapshots / f"epoch-{epoch:03d}.safetensors"

    def needed(self, rows: list[dict[str, Any]]) -> list[int]:
        """Return the epochs of the snapshots to keep, given the history's rows so far."""
        taken = [epoch for epoch in self.epochs if epoch < len(rows)]
        return taken if self.all_snapshots or not taken else sorted({best_epoch(rows), taken[-1]})

    def load(self) -> dict[str, Any]:
        """Return the state to resume from; without one, that of no epochs: `{"rows": []}`."""
        for path in self.directory.rglob(".*.tmp"):  # of killed processes
            path.unlink()
        try:
            state = self.state.load() or {"rows": []}
            for epoch in self.needed(state["rows"]):
                load_checkpoint(self.snapshot(epoch))
            return state
        except FileError as problem:
            self.report(f"{self.state.path}: {problem}; the training starts from the beginning")
            self.state.path.unlink()  # first, so that no state is left without its snapshots
            shutil.rmtree(self.snapshots, ignore_errors=True)
            return {"rows": []}

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the state, whose `rows` are the history, and remove snapshots that are no longer needed."""
        self.state.save(state)
        _remove_others(self.snapshots, {self.snapshot(epoch).name for epoch in self.needed(state["rows"])})

    def publish(self, rows: list[dict[str, Any]]) -> None:
        """Write `checkpoints/{best,last,epoch-NNN}.safetensors`; reduce the state to the history."""
        needed, target = self.needed(rows), self.directory / "checkpoints"
        files = {"best.safetensors": best_epoch(rows), "last.safetensors": needed[-1]}
        if self.all_snapshots:
            files |= {self.snapshot(epoch).name: epoch for epoch in needed}
        for name, epoch in files.items():
            _link(self.snapshot(epoch), target / name)
        _remove_others(target, files)
        self.save({"rows": rows})


def _remove_others(folder: Path, names: Collection[str]) -> None:
    for path in folder.glob("epoch-*.safetensors"):
        if path.name not in names:
            path.unlink()


def _link(source: Path, target: Path) -> None:
    """Make `target` a hard link of `source`, or a copy where the file system has no links; modified now."""
    with atomic_path(target) as temporary:
        temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
        os.utime(temporary)


class Parts:
    """Finished parts of a measuring job, appended to the file `path` one by one; use it inside `locked`. Each
    line is a JSON object with `name`, `fingerprint`, `value`, and `sha256`, the digest of the other three.
    Damaged lines are ignored; of several lines with a name, the last counts."""

    def __init__(self, path: Path, report: Report):
        self.path, self.report = Path(path), report
        self.parts: dict[str, dict[str, Any]] = {}
        self.used: set[str] = set()
        text = self.path.read_text(encoding="utf-8", errors="replace") if self.path.exists() else ""
        self._separator = "\n" if text and not text.endswith("\n") else ""
        for line in text.splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                part = json.loads(line)
                if part.pop("sha256") == digest(part):
                    self.parts[part["name"]] = part

    def get(self, name: str, components: Mapping[str, Any], compute: Callable[[], Any]) -> Any:
        """Return the stored value of part `name` if its fingerprint is that of `components`, else
        `compute()`, which is stored, as a JSON value with sorted keys."""
        current, stored = fingerprint(components), self.parts.get(name)
        if stored and not (changed := differing(stored["fingerprint"], current)):
            if name not in self.used:
                self.report(f"{name}: taken from an earlier run")
                self.used.add(name)
            return stored["value"]
        if stored:
            self.report(f"{name}: computed again, as these have changed: {changed}")
        part = json.loads(canonical_json({"name": name, "fingerprint": current, "value": compute()}))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(self._separator + _line(part))
        self._separator, self.parts[name] = "", part
        self.used.add(name)
        return part["value"]

    def prune(self) -> None:
        """Rewrite the file atomically with the parts returned by `get`; remove the states of AutoAttack."""
        used = [_line(part) for name, part in self.parts.items() if name in self.used]
        write_text(self.path, "".join(used), durable=False)
        for path in self.path.parent.glob("autoattack-*"):
            path.unlink()


def _line(part: dict[str, Any]) -> str:
    return canonical_json({**part, "sha256": digest(part)}) + "\n"
