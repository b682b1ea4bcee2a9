"""A state file: tensors and other values with a checksum and a fingerprint."""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from robust_flatness.errors import FileError
from robust_flatness.files import atomic_path, digest


def tensors_digest(text: str, tensors: Mapping[str, Any]) -> str:
    """Return the SHA-256 digest of a text and of names, dtypes, shapes and bytes of tensors, in the order of
    their names; other values, such as a module's extra state, count by their `repr`."""
    found = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        if not isinstance(tensor, torch.Tensor):
            found.update(f"{name} {tensor!r}\n".encode())
            continue
        tensor = tensor.detach().cpu().contiguous()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def fingerprint(components: Mapping[str, Any]) -> dict[str, str]:
    """Return the digest of each component, a JSON value, that a result depends on."""
    return {name: digest(value) for name, value in components.items()}


def differing(stored: Mapping[str, str], current: Mapping[str, str]) -> str:
    """Return the names of the components in which two fingerprints differ; empty if they are equal."""
    return ", ".join(name for name in current if stored.get(name) != current[name])


class StateFile:
    """The state at `path`: a file of `torch.save` after its SHA-256. `components` as in `fingerprint`."""

    def __init__(self, path: Path, components: Mapping[str, Any]):
        self.path, self.fingerprint = Path(path), fingerprint(components)

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the state atomically. Values are tensors, numbers, text, and lists and dicts of them."""
        buffer = io.BytesIO()
        torch.save({**state, "fingerprint": self.fingerprint}, buffer)
        with atomic_path(self.path) as temporary:
            temporary.write_bytes(hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue())

    def load(self) -> dict[str, Any] | None:
        """Return the state, with tensors on the CPU, or None if there is none; a FileError says whether the
        file is damaged or what has changed."""
        if not self.path.exists():
            return None
        data = self.path.read_bytes()
        if hashlib.sha256(data[32:]).digest() != data[:32]:
            raise FileError("damaged, or written by another version")
        state = torch.load(io.BytesIO(data[32:]), map_location="cpu", weights_only=True)
        if changed := differing(state.pop("fingerprint"), self.fingerprint):
            raise FileError(f"written with other {changed}")
        return state
