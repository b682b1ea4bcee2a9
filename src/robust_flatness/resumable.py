"""What interrupted work has finished, and the lock of who goes on with it.

A workflow deletes a job's declared outputs before it runs the job again, so nothing that must
survive lies among them: it is kept in a folder `.resume` beside them. Trainings keep the state and
the snapshots of the last finished epoch, measures the parts that they have finished, AutoAttack
what its attacks have left. State carries a checksum and the fingerprint of all that the result
depends on; damaged or foreign state is never taken up.

    .resume/lock          held by the process that is at work (beside it lock-lease, see `locked`)
    .resume/finished      fingerprint of the work that was finished last
    .resume/...           state, described at each class
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from robust_flatness.errors import FileError
from robust_flatness.files import atomic_path, canonical_json, write_json, write_text
from robust_flatness.models.checkpoint import load_checkpoint
from robust_flatness.provenance import source_digest

#: What flock(2) fails with on file systems that do not implement it.
NO_FLOCK = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
#: Seconds after which a lock file that its holder no longer refreshes may be taken over.
LEASE = 60.0
#: Seconds between two attempts to get a lock that another process holds.
POLL = 0.2
DIGEST = 64
NOTES = "notes"
Report = Callable[[str], None]


@contextlib.contextmanager
def locked(folder: Path, waiting: str, report: Report) -> Iterator[bool]:
    """Hold the lock of `folder`; yields whether another process was waited for (then `waiting` is said).

    A killed workflow leaves its jobs running: the next one waits for them. The kernel frees the lock
    when its holder ends, however it ends. On file systems without flock (some Lustre, NFS and FUSE
    mounts) a file takes its place. Its holder refreshes it; it is taken over once its process on this
    machine is gone, or where it has not been refreshed for `LEASE` seconds, as after the end of
    another machine.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / "lock", poll_interval=POLL, fallback_to_soft=False)
    with contextlib.ExitStack() as stack:
        try:
            waited = _acquire(lock, stack, folder, waiting, report)
        except OSError as error:
            if error.errno not in NO_FLOCK:
                raise
            report(
                f"note: {folder}: no flock on this file system ({error.strerror}); "
                "the file lock-lease in it takes its place"
            )
            lease = filelock.SoftFileLease(folder / "lock-lease", lease_duration=LEASE, poll_interval=POLL)
            waited = _acquire(lease, stack, folder, waiting, report)
        yield waited


def _acquire(
    lock: filelock.BaseFileLock, stack: contextlib.ExitStack, folder: Path, waiting: str, report: Report
) -> bool:
    try:
        stack.enter_context(lock.acquire(blocking=False))
    except filelock.Timeout:
        report(f"{folder.parent}: {waiting}; waiting for it to end")
        stack.enter_context(lock.acquire())
        return True
    return False


class State(NamedTuple):
    """What work had come to: tensors by name, and all else as JSON values."""

    tensors: dict[str, Tensor]
    notes: dict[str, Any]


@dataclass(frozen=True)
class StateFile:
    """One state at `path`: SHA-256 of the rest, then safetensors. `fingerprint` says whose it is."""

    path: Path
    fingerprint: str

    def save(self, tensors: dict[str, Tensor], notes: dict[str, Any]) -> None:
        """Replace the state, whole or not at all."""
        notes = {**notes, "fingerprint": self.fingerprint}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        tensors[NOTES] = torch.frombuffer(bytearray(json.dumps(notes).encode()), dtype=torch.uint8)
        payload = save(tensors)
        with atomic_path(self.path, durable=False) as temporary:
            temporary.write_bytes(hashlib.sha256(payload).hexdigest().encode() + payload)

    def load(self) -> State | None:
        """The state; None if there is none.

        Raises
        ------
        FileError
            If it is damaged, or of another fingerprint; the message says which, without the path.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise FileError(f"cannot be read ({error.strerror})") from None
        digest, payload = data[:DIGEST], data[DIGEST:]
        if hashlib.sha256(payload).hexdigest().encode() != digest:
            raise FileError("damaged (its checksum does not match)")
        try:
            tensors = load(payload)
            notes = json.loads(tensors.pop(NOTES).numpy().tobytes())
        except (SafetensorError, KeyError, ValueError) as error:
            raise FileError(f"cannot be read ({error})") from None
        if notes.pop("fingerprint", None) != self.fingerprint:
            raise FileError("belongs to other settings, data or torch version")
        return State(tensors, notes)


def snapshot_name(epoch: int) -> str:
    """File name of the snapshot after `epoch`."""
    return f"epoch-{epoch:03d}.safetensors"


class UnfinishedTraining:
    """State of one training in `directory`. Use the methods inside `locked` only.

    .resume/state         as of the last finished epoch
    .resume/checkpoints/  the snapshots so far
    .resume/finished      fingerprint, history and snapshots of the training that was published last

    `fingerprint` identifies everything that the training depends on; state of another fingerprint
    is discarded. `report` takes messages for the log. Without `all_snapshots`, the best and the last
    snapshot alone are kept, as copies under their names, and in `.resume`.
    """

    def __init__(self, directory: Path, fingerprint: str, report: Report, all_snapshots: bool = True):
        self.directory = Path(directory)
        self.fingerprint = fingerprint
        self.report = report
        self.all_snapshots = all_snapshots
        self.folder = self.directory / ".resume"
        self.state = StateFile(self.folder / "state", fingerprint)
        self.snapshots = self.folder / "checkpoints"
        self._published = self.directory / "checkpoints"
        self._finished = self.folder / "finished"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock; another process that holds it is waited for."""
        with locked(self.folder, "another process is training here", self.report):
            yield

    def finished(self) -> list[dict[str, Any]] | None:
        """The history of this very training, if it has been finished and its snapshots are whole.

        Its declared outputs may be gone: a workflow deletes those of a job whose end it has not seen.
        """
        try:
            content = json.loads(self._finished.read_text(encoding="utf-8"))
            if content["fingerprint"] != self.fingerprint:
                return None
            if self.all_snapshots and not content["all_snapshots"]:
                return None
            for name, digest in content["snapshots"].items():
                if load_checkpoint(self._kept(name)).metadata.sha256 != digest:
                    return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, FileError):
            return None
        return content["rows"]

    def load(self) -> State | None:
        """The last finished epoch's state; None to start from the beginning.

        State that is damaged, belongs to another training or lacks a snapshot is discarded with a
        message.
        """
        for path in (*self.folder.glob(".*.tmp"), *self.snapshots.glob(".*.tmp")):
            path.unlink(missing_ok=True)
        try:
            state = self.state.load()
            for epoch in state.notes.pop("snapshots") if state else ():
                load_checkpoint(self.snapshots / snapshot_name(epoch))
        except FileError as problem:
            self.report(f"{self.state.path}: {problem}; training starts from the beginning")
            self.clear()
            return None
        return state

    def save(self, state: State, snapshots: Iterable[int]) -> None:
        """Replace the state, whole or not at all; `snapshots` are the epochs of those it needs."""
        epochs = list(snapshots)
        self.state.save(state.tensors, {**state.notes, "snapshots": epochs})
        if not self.all_snapshots:
            self._drop_others(map(snapshot_name, epochs))

    def _drop_others(self, names: Iterable[str]) -> None:
        for path in set(self.snapshots.glob("epoch-*.safetensors")) - {self.snapshots / n for n in names}:
            path.unlink()

    def _kept(self, name: str) -> Path:
        """Where a snapshot of a training that may be finished lies."""
        path = self.snapshots / name
        return path if path.exists() else self._published / name

    def publish(self, epochs: Iterable[int], best: int) -> None:
        """Put the snapshots of `epochs`, `best` and `last` into `<directory>/checkpoints`.

        The snapshots stay in the store as well, until `finish`; those that are not there any more
        have been published.
        """
        epochs, target = sorted(epochs), self._published
        target.mkdir(parents=True, exist_ok=True)
        named = {"best": snapshot_name(best), "last": snapshot_name(epochs[-1])}
        wanted = {snapshot_name(epoch) for epoch in epochs} if self.all_snapshots else set(named.values())
        other = self.snapshots if self.all_snapshots else target
        for name in wanted:
            if (other / name).exists():
                _link(other / name, self._home / name)
        for name, snapshot in named.items():
            with atomic_path(target / f"{name}.safetensors") as temporary:
                shutil.copyfile(self._home / snapshot, temporary)
        for path in (*target.glob("epoch-*.safetensors"), *target.glob(".*.tmp")):
            if not self.all_snapshots or path.name not in wanted:
                path.unlink()

    def finish(self, rows: list[dict[str, Any]]) -> None:
        """Everything is published: note the history, drop what is not needed to publish it again."""
        snapshots = {
            path.name: load_checkpoint(path).metadata.sha256
            for path in sorted(self._home.glob("epoch-*.safetensors"))
        }
        content = {"fingerprint": self.fingerprint, "rows": rows, "snapshots": snapshots}
        write_text(self._finished, json.dumps(content | {"all_snapshots": self.all_snapshots}))
        if self.all_snapshots:
            self.clear()
        else:
            self.state.path.unlink(missing_ok=True)

    @property
    def _home(self) -> Path:
        """Where the snapshots of a finished training stay."""
        return self._published if self.all_snapshots else self.snapshots

    def clear(self) -> None:
        """Remove state and snapshots; the state first, so that none is left without snapshots."""
        self.state.path.unlink(missing_ok=True)
        shutil.rmtree(self.snapshots, ignore_errors=True)


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
        """Hold the lock; yields False where nothing is left to do.

        If the process that was waited for has written the `outputs` of this very job, there is
        nothing left to do. What a measure keeps beside the parts (`parts` is its folder too) is
        removed when the block succeeds.
        """
        outputs = [Path(path) for path in outputs]
        with locked(self.folder, "another process is measuring this", self.report) as waited:
            if waited and self._is_finished() and all(path.exists() for path in outputs):
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
        if _kept(path) is not None:
            self.report(f"{name}: taken from an earlier run")
        return kept(path, compute)

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


def _link(source: Path, target: Path) -> None:
    """`target` as a second name of `source`, or a copy where the file system has no links."""
    with atomic_path(target) as temporary:
        temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
