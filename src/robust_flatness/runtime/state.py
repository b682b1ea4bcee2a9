"""A state file: tensors and JSON values with a checksum and a fingerprint."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load, save
from torch import Tensor

from robust_flatness.errors import FileError
from robust_flatness.files import atomic_path, canonical_json

DIGEST = 64
NOTES = "notes"


def digest(value: Any) -> str:
    """Return the SHA-256 digest of a JSON value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def fingerprint(components: Mapping[str, Any]) -> dict[str, str]:
    """Return the digest of each component, a JSON value, that a result depends on, e.g. settings and data."""
    return {name: digest(value) for name, value in components.items()}


def differing(stored: Mapping[str, str], current: Mapping[str, str]) -> str:
    """Return the names of the components in which two fingerprints differ; empty if they are equal."""
    return ", ".join(name for name in current if stored.get(name) != current[name])


class State(NamedTuple):
    """Tensors by name, and everything else as JSON values."""

    tensors: dict[str, Tensor]
    notes: dict[str, Any]


class StateFile:
    """The state at `path`: SHA-256 of the rest, then safetensors. `components` as in `fingerprint`."""

    def __init__(self, path: Path, components: Mapping[str, Any]):
        self.path, self.fingerprint = Path(path), fingerprint(components)

    def save(self, tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> None:
        """Replace the state atomically."""
        notes = {**notes, "fingerprint": self.fingerprint}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        tensors[NOTES] = torch.frombuffer(bytearray(json.dumps(notes).encode()), dtype=torch.uint8)
        payload = save(tensors)
        with atomic_path(self.path, durable=False) as temporary:
            temporary.write_bytes(hashlib.sha256(payload).hexdigest().encode() + payload)

    def load(self) -> State | None:
        """Return the state, or None if there is none.

        Raises
        ------
        FileError
            If the file is damaged or has another fingerprint. The message does not name the file.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        if hashlib.sha256(data[DIGEST:]).hexdigest().encode() != data[:DIGEST]:
            raise FileError("damaged (the checksum does not match)")
        tensors = load(data[DIGEST:])
        notes = json.loads(tensors.pop(NOTES).numpy().tobytes())
        stored = notes.pop("fingerprint")
        if changed := differing(stored if isinstance(stored, dict) else {}, self.fingerprint):
            raise FileError(f"written with other {changed}")
        return State(tensors, notes)
