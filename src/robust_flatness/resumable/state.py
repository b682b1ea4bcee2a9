"""A state of interrupted work in one file, with a checksum and the fingerprint of whose it is."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from robust_flatness.errors import FileError
from robust_flatness.files import atomic_path

DIGEST = 64
NOTES = "notes"


class ForeignStateError(FileError):
    """A whole state, but of another `fingerprint`."""

    def __init__(self, fingerprint: str):
        super().__init__("belongs to other settings, data, or another version of torch or of this package")
        self.fingerprint = fingerprint


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
            If it is damaged, or of another fingerprint (`ForeignStateError`); the message says which, without
            the path.
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
        if (found := notes.pop("fingerprint", "unknown")) != self.fingerprint:
            raise ForeignStateError(found)
        return State(tensors, notes)
