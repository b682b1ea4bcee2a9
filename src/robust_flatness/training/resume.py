"""State of an interrupted training, outside the declared outputs.

A workflow deletes a job's declared outputs before it runs the job again, so nothing that must
survive lies among them: state and snapshots are kept in `<directory>/.resume` and published at
the very end.

    .resume/lock          held by the process that is training here
    .resume/state         SHA-256 of the rest, then safetensors as of the last finished epoch
    .resume/checkpoints/  the snapshots so far
    .resume/finished      fingerprint and history of the training that was published last
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from robust_flatness.config import ConfigError
from robust_flatness.files import atomic_path, write_text
from robust_flatness.models.checkpoint import load_checkpoint

DIGEST = 64
NOTES = "notes"
Report = Callable[[str], None]


class State(NamedTuple):
    """A training after its last finished epoch: tensors by name, and all else as JSON values."""

    tensors: dict[str, Tensor]
    notes: dict[str, Any]


def snapshot_name(epoch: int) -> str:
    """File name of the snapshot after `epoch`."""
    return f"epoch-{epoch:03d}.safetensors"


class ResumeStore:
    """Resume state of one training.

    `fingerprint` identifies everything that the training depends on; state of another fingerprint
    is discarded. `report` takes messages for the log. Use the methods inside `locked` only.
    """

    def __init__(self, directory: Path, fingerprint: str, report: Report):
        self.directory = Path(directory)
        self.fingerprint = fingerprint
        self.report = report
        self.folder = self.directory / ".resume"
        self.state_path = self.folder / "state"
        self.snapshots = self.folder / "checkpoints"
        self._published = self.directory / "checkpoints"
        self._finished = self.folder / "finished"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock; another process that holds it is waited for.

        The kernel frees the lock when its holder ends, however it ends.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.report(f"{self.directory}: another process is training here; waiting for it to end")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def finished(self) -> list[dict[str, Any]] | None:
        """The history of this very training, if it has been finished and its snapshots are whole.

        Its declared outputs may be gone: a workflow deletes those of a job whose end it has not seen.
        """
        try:
            content = json.loads(self._finished.read_text(encoding="utf-8"))
            if content["fingerprint"] != self.fingerprint:
                return None
            for name, digest in content["snapshots"].items():
                if load_checkpoint(self._published / name).metadata.sha256 != digest:
                    return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ConfigError):
            return None
        return content["rows"]

    def load(self) -> State | None:
        """The last finished epoch's state; None to start from the beginning.

        State that is damaged, belongs to another training or lacks a snapshot is discarded with a
        message.
        """
        for path in (*self.folder.glob(".*.tmp"), *self.snapshots.glob(".*.tmp")):
            path.unlink(missing_ok=True)
        if not self.state_path.exists():
            return None
        try:
            return self._read()
        except ConfigError as problem:
            self.report(f"{self.state_path}: {problem}; training starts from the beginning")
            self.clear()
            return None

    def _read(self) -> State:
        data = self.state_path.read_bytes()
        digest, payload = data[:DIGEST], data[DIGEST:]
        if hashlib.sha256(payload).hexdigest().encode() != digest:
            raise ConfigError("damaged (its checksum does not match)")
        try:
            tensors = load(payload)
            notes = json.loads(tensors.pop(NOTES).numpy().tobytes())
        except (SafetensorError, KeyError, ValueError) as error:
            raise ConfigError(f"cannot be read ({error})") from None
        if notes.pop("fingerprint", None) != self.fingerprint:
            raise ConfigError("belongs to other settings, data or torch version")
        for epoch in notes.pop("snapshots"):
            load_checkpoint(self.snapshots / snapshot_name(epoch))
        return State(tensors, notes)

    def save(self, state: State, snapshots: Iterable[int]) -> None:
        """Replace the state, whole or not at all; `snapshots` are the epochs of those it needs."""
        notes = {**state.notes, "fingerprint": self.fingerprint, "snapshots": list(snapshots)}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors.items()}
        tensors[NOTES] = torch.frombuffer(bytearray(json.dumps(notes).encode()), dtype=torch.uint8)
        payload = save(tensors)
        with atomic_path(self.state_path, durable=False) as temporary:
            temporary.write_bytes(hashlib.sha256(payload).hexdigest().encode() + payload)

    def publish(self, epochs: Iterable[int], best: int) -> None:
        """Put the snapshots of `epochs`, `best` and `last` into `<directory>/checkpoints`.

        The snapshots stay in the store as well, until `finish`; those that are not there any more
        have been published.
        """
        epochs = sorted(epochs)
        target = self._published
        target.mkdir(parents=True, exist_ok=True)
        names = {snapshot_name(epoch): epoch for epoch in epochs}
        for path in (*target.glob("epoch-*.safetensors"), *target.glob(".*.tmp")):
            if path.name not in names:
                path.unlink()
        for name in names:
            if (self.snapshots / name).exists():
                _link(self.snapshots / name, target / name)
        for name, epoch in {"best": best, "last": epochs[-1]}.items():
            with atomic_path(target / f"{name}.safetensors") as temporary:
                shutil.copyfile(target / snapshot_name(epoch), temporary)

    def finish(self, rows: list[dict[str, Any]]) -> None:
        """Everything is published: note the history, drop state and snapshots."""
        snapshots = {
            path.name: load_checkpoint(path).metadata.sha256
            for path in sorted(self._published.glob("epoch-*.safetensors"))
        }
        content = {"fingerprint": self.fingerprint, "rows": rows, "snapshots": snapshots}
        write_text(self._finished, json.dumps(content))
        self.clear()

    def clear(self) -> None:
        """Remove state and snapshots; the state first, so that none is left without snapshots."""
        self.state_path.unlink(missing_ok=True)
        shutil.rmtree(self.snapshots, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    """`target` as a second name of `source`, or a copy where the file system has no links."""
    with atomic_path(target) as temporary:
        temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
