"""What an interrupted training has finished."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from robust_flatness.checkpoints import load_checkpoint
from robust_flatness.errors import FileError
from robust_flatness.files import atomic_path, write_text
from robust_flatness.resumable.lock import Report, locked
from robust_flatness.resumable.state import ForeignStateError, State, StateFile


def snapshot_name(epoch: int) -> str:
    """File name of the snapshot after `epoch`."""
    return f"epoch-{epoch:03d}.safetensors"


class UnfinishedTraining:
    """State of one training in `directory`. Use the methods inside `locked` only.

    .resume/state         as of the last finished epoch
    .resume/checkpoints/  the snapshots so far
    .resume/finished      fingerprint, history and snapshots of the training that was published last
    .resume/aside/        the same of others, by fingerprint, until one is trained to its end

    `fingerprint` identifies everything that the training depends on; state of another fingerprint is put
    aside, and taken up by the training that it belongs to. `report` takes messages for the log. Without
    `all_snapshots`, the best and the last snapshot alone are kept, as copies under their names, and in
    `.resume`.
    """

    def __init__(self, directory: Path, fingerprint: str, report: Report, all_snapshots: bool = True):
        self.directory = Path(directory)
        self.fingerprint = fingerprint
        self.report = report
        self.all_snapshots = all_snapshots
        self.folder = self.directory / ".resume"
        self.state = StateFile(self.folder / "state", fingerprint)
        self.snapshots = self.folder / "checkpoints"
        self.aside = self.folder / "aside"
        self._published = self.directory / "checkpoints"
        self._finished = self.folder / "finished"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock; another process that holds it is waited for."""
        with locked(self.folder, "another process is training here", self.report):
            yield

    def finished(self) -> list[dict[str, Any]] | None:
        """The history of this very training, if it has been finished and its snapshots are whole.

        Its declared outputs may be gone: a workflow deletes those of a job whose end it has not seen. State
        of another training that was begun here since is put aside.
        """
        try:
            content = self._note()
            if content["fingerprint"] != self.fingerprint:
                return None
            if self.all_snapshots and not content["all_snapshots"]:
                return None
            self._put_aside_others()
            snapshots = content["snapshots"].items()
            if all(_is_whole(self._published / name, digest) for name, digest in snapshots):
                if self.all_snapshots:  # what another has left before its first state
                    shutil.rmtree(self.snapshots, ignore_errors=True)
            elif not all(_is_whole(self.snapshots / name, digest) for name, digest in snapshots):
                return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return content["rows"]

    def _note(self) -> dict[str, Any]:
        """What `.resume/finished` says, of this training where it had been put aside."""
        own = self._aside_of(self.fingerprint)
        note, snapshots = own / self._finished.name, own / self.snapshots.name
        if note.exists():
            self._put_aside_others()
            if snapshots.exists():
                _replace_folder(snapshots, self.snapshots)
            note.replace(self._finished)
        content = self._read_note()
        if content["fingerprint"] == self.fingerprint and snapshots.exists() and not self.snapshots.exists():
            _replace_folder(snapshots, self.snapshots)  # a move that was cut short
        return content

    def _read_note(self) -> dict[str, Any]:
        """What `.resume/finished` says; of no training where it is missing or damaged."""
        try:
            return {"fingerprint": "", "all_snapshots": True, **json.loads(self._finished.read_bytes())}
        except (OSError, ValueError, TypeError):
            return {"fingerprint": "", "all_snapshots": True}

    def _put_aside_others(self) -> None:
        try:
            self.state.load()
        except ForeignStateError as problem:
            self._put_aside(problem)
        except FileError as problem:
            self.report(f"{self.state.path}: {problem}; discarded")
            self.clear()

    def _put_finished_aside(self) -> None:
        """Where the snapshots of a finished training lie in the store, another would overwrite them."""
        content = self._read_note()
        if content["all_snapshots"] or content["fingerprint"] == self.fingerprint:
            return
        target = self._aside_of(content["fingerprint"])
        target.mkdir(parents=True, exist_ok=True)
        if self.snapshots.exists() and not self.state.path.exists():
            _replace_folder(self.snapshots, target / self.snapshots.name)
        self._finished.replace(target / self._finished.name)

    def load(self) -> State | None:
        """The last finished epoch's state; None to start from the beginning.

        State that is damaged or lacks a snapshot is discarded with a message; that of another training is
        put aside, since days of work may go on once settings or versions are as before.
        """
        for path in (*self.folder.glob(".*.tmp"), *self.snapshots.glob(".*.tmp")):
            path.unlink(missing_ok=True)
        self._put_finished_aside()
        while True:
            try:
                return self._load()
            except ForeignStateError as problem:
                self._put_aside(problem)
            except FileError as problem:
                self.report(f"{self.state.path}: {problem}; training starts from the beginning")
                self.clear()

    def _put_aside(self, problem: ForeignStateError) -> None:
        target = self._aside_of(problem.fingerprint)
        target.mkdir(parents=True, exist_ok=True)
        if self.snapshots.exists():
            _replace_folder(self.snapshots, target / self.snapshots.name)
        self.state.path.replace(target / self.state.path.name)
        self.report(
            f"{self.state.path}: {problem}; until one is trained to its end here it is kept in "
            f"{target}, and goes on once all is as it was"
        )

    def _load(self) -> State | None:
        """The state, or that of this training that was put aside. A move that was cut short, of either
        direction, has left the state here and the snapshots aside."""
        own = self._aside_of(self.fingerprint)
        state, snapshots = own / self.state.path.name, own / self.snapshots.name
        if not self.state.path.exists() and state.exists():
            shutil.rmtree(self.snapshots, ignore_errors=True)
            state.replace(self.state.path)
        loaded = self.state.load()
        if loaded and snapshots.exists() and not self.snapshots.exists():
            _replace_folder(snapshots, self.snapshots)
        for epoch in loaded.notes.pop("snapshots") if loaded else ():
            load_checkpoint(self.snapshots / snapshot_name(epoch))
        return loaded

    def _aside_of(self, fingerprint: str) -> Path:
        return self.aside / fingerprint[:16]

    def save(self, state: State, snapshots: Iterable[int]) -> None:
        """Replace the state, whole or not at all; `snapshots` are the epochs of those it needs."""
        epochs = list(snapshots)
        self.state.save(state.tensors, {**state.notes, "snapshots": epochs})
        if not self.all_snapshots:
            self._drop_others(map(snapshot_name, epochs))

    def _drop_others(self, names: Iterable[str]) -> None:
        for path in set(self.snapshots.glob("epoch-*.safetensors")) - {self.snapshots / n for n in names}:
            path.unlink()

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
        """Everything is published: note the history, drop what is not needed to publish it again. What was
        put aside stays if this training had been finished before."""
        before = self._read_note()["fingerprint"] == self.fingerprint
        snapshots = {
            path.name: load_checkpoint(path).metadata.sha256
            for path in sorted(self._home.glob("epoch-*.safetensors"))
        }
        content = {"fingerprint": self.fingerprint, "rows": rows, "snapshots": snapshots}
        write_text(self._finished, json.dumps(content | {"all_snapshots": self.all_snapshots}))
        if not before:
            shutil.rmtree(self.aside, ignore_errors=True)
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


def _is_whole(path: Path, digest: str) -> bool:
    """Whether a snapshot is there and the one of this checksum."""
    try:
        return load_checkpoint(path).metadata.sha256 == digest
    except (OSError, FileError):
        return False


def _replace_folder(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    source.replace(target)


def _link(source: Path, target: Path) -> None:
    """`target` as a second name of `source`, or a copy where the file system has no links."""
    with atomic_path(target) as temporary:
        temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
