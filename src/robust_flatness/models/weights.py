"""Weights from files as people save them, into networks whose names may differ in known ways."""

import re
import tarfile
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robust_flatness.errors import ConfigError

#: Keys under which checkpoints keep the weights, the first found counts.
NESTED = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params")
#: Prefixes that wrappers add to all names.
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.")
#: Files that torch.save writes.
TORCH_FILES = (".pt", ".pth", ".bin", ".ckpt", ".tar")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors by name in a .safetensors file, or in one of `torch.save`; no code in it is run.

    In files of `torch.save` the weights may lie under a key such as `state_dict`.

    Raises
    ------
    ConfigError
        If the file is missing, damaged, or of another format.
    """
    path = Path(path)
    if path.is_dir():
        raise ConfigError(f"weights: {path}: a folder; give the file of the weights")
    if not path.is_file():
        raise ConfigError(f"weights: {path}: no such file")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (OSError, SafetensorError, ValueError) as error:
            raise ConfigError(f"weights: {path}: truncated or damaged ({error})") from None
    if path.suffix not in TORCH_FILES:
        allowed = ", ".join((".safetensors", *TORCH_FILES))
        raise ConfigError(f"weights: {path} given; expected a file {allowed}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, of scripts, which are refused below
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever unpickling a damaged file raises
        raise ConfigError(f"weights: {path}: {_unreadable(path, error)}") from None
    return _tensors(found, path)


def _unreadable(path: Path, error: Exception) -> str:
    """What is wrong with a file that `torch.load` refuses, in words of ours: torch's own advise to run it."""
    start = path.open("rb").read(16)
    if not start.startswith((b"PK", b"\x80")) and not tarfile.is_tarfile(path):
        return f"no file of torch.save: it begins with {start!r}" if start else "empty, no file of torch.save"
    name = re.search(r"GLOBAL ([\w.]+)", str(error))
    if name or "TorchScript" in str(error):
        asked = f" ({name[1]})" if name else ""
        return (
            f"holds a whole network or other objects{asked}, which cannot be read without running code from "
            "it; save the weights alone: torch.save(model.state_dict(), ...)"
        )
    reason = str(error).splitlines()[0].partition(". ")[0] if str(error) else type(error).__name__
    return f"truncated or damaged ({reason})"


def _tensors(found: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(found, Mapping):
        if found and all(isinstance(name, str) and _is_dense(value) for name, value in found.items()):
            return dict(found)
        for key in NESTED:
            if isinstance(found.get(key), Mapping):
                return _tensors(found[key], path)
        keys = ", ".join(map(repr, list(found)[:8]))
        raise ConfigError(f"weights: {path}: no weights by name in it (it holds {keys or 'nothing'})")
    raise ConfigError(
        f"weights: {path}: holds {type(found).__name__}; expected weights by name (a state_dict)"
    )


def _is_dense(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided


def fit(tensors: Mapping[str, Tensor], model: nn.Module, path: Path) -> dict[str, Tensor]:
    """`tensors` under the names that `model` has.

    Prefixes of wrappers are taken off, the count of an average of weights is left out, counters of
    batch norms that old files lack stay as they are, and of tied tensors one is enough.

    Raises
    ------
    ConfigError
        If names or shapes differ otherwise.
    """
    expected = model.state_dict()
    found = {name: tensor for name, tensor in tensors.items() if name != "n_averaged"}
    found = _without_prefixes(found, expected)
    places: dict[int, str] = {}
    for name, tensor in expected.items():
        if tensor.numel() and name in found:
            places.setdefault(tensor.data_ptr(), name)
    for name, tensor in expected.items():
        if name in found:
            continue
        twin = places.get(tensor.data_ptr()) if tensor.numel() else None
        if twin is not None and found[twin].shape == tensor.shape:
            found[name] = found[twin]
        elif name.endswith("num_batches_tracked"):
            found[name] = tensor
    problems = [
        f"{name!r} (expected {_shape(expected.get(name))}, found {_shape(found.get(name))})"
        for name in sorted(expected.keys() | found.keys())
        if _shape(expected.get(name)) != _shape(found.get(name))
    ]
    if problems:
        raise ConfigError(
            f"weights: {path}: belong to another architecture: {len(problems)} tensors differ, first "
            f"{problems[0]}"
        )
    for name, tensor in expected.items():
        if tensor.is_floating_point() and not found[name].is_floating_point():
            raise ConfigError(
                f"weights: {path}: {name!r} is of {found[name].dtype}, which {tensor.dtype} cannot stand for"
            )
    return found


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load `tensors`, under whatever names a wrapper gave them (see `fit`), into `model`."""
    fitting = OrderedDict(fit(tensors, model, path))
    fitting._metadata = model.state_dict()._metadata  # versions of the layers' formats, which renaming loses
    model.load_state_dict(fitting)


def without_wrappers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` without the prefixes that all names share."""
    return _without_prefixes(dict(tensors), {})


def _without_prefixes(found: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    while found and not found.keys() & expected.keys():
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in found)), None)
        if prefix is None:
            break
        found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    return found


def _shape(tensor: Tensor | None) -> tuple[int, ...] | str:
    return "none" if tensor is None else tuple(tensor.shape)
