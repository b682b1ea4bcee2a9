"""Files of weights as people save them, loaded into networks whose names may differ in known ways."""

import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from robust_flatness.errors import ConfigError

#: Keys under which checkpoints keep the weights; the first of them counts.
NESTED = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params")
#: Prefixes that wrappers add to all names.
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.")
#: Extensions of files of torch.save.
TORCH_FILES = (".pt", ".pth", ".bin", ".ckpt", ".tar")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors by name in a .safetensors file, or in one of `torch.save`, without running its code.

    Raises `ConfigError` if the file is missing, damaged, or of another format.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"weights: {path}: {'a folder; give a file' if path.is_dir() else 'no such file'}")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (OSError, SafetensorError, ValueError) as error:
            raise ConfigError(f"weights: {path}: truncated or damaged ({error})") from None
    if path.suffix not in TORCH_FILES:
        raise ConfigError(f"weights: {path} given; expected a file .safetensors, {', '.join(TORCH_FILES)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of scripts, which are refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever unpickling a damaged file raises
        reason = str(error).splitlines()[0].partition(". ")[0] if str(error) else type(error).__name__
        hint = "; if it holds a whole network, save its state_dict alone (no code is run from files)"
        raise ConfigError(f"weights: {path}: cannot be read, or damaged ({reason}){hint}") from None
    while isinstance(content, Mapping) and not _are_weights(content):
        nested = next((content[key] for key in NESTED if isinstance(content.get(key), Mapping)), None)
        if nested is None:
            raise ConfigError(f"weights: {path}: no weights by name in it (keys {list(content)[:8]})")
        content = nested
    if not isinstance(content, Mapping):
        raise ConfigError(f"weights: {path}: holds {type(content).__name__}; expected a state_dict")
    return dict(content)


def _are_weights(content: Mapping[Any, Any]) -> bool:
    return bool(content) and all(
        isinstance(name, str) and isinstance(value, Tensor) and value.layout == torch.strided
        for name, value in content.items()
    )


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load `tensors` into `model`, whose names may differ in known ways, else raise `ConfigError`.

    Prefixes of wrappers are removed, the counter of averaged weights is ignored, counters of batch norms may
    be missing, and of tied tensors one is enough.
    """
    expected = model.state_dict()
    own = {name: tensor for name, tensor in tensors.items() if name != "n_averaged"}
    own = without_prefixes(own, expected)
    tied: dict[int, str] = {}
    for name, tensor in expected.items():
        if tensor.numel() and name in own:
            tied.setdefault(tensor.data_ptr(), name)
    for name in expected.keys() - own.keys():
        twin = tied.get(expected[name].data_ptr()) if expected[name].numel() else None
        if twin is not None and own[twin].shape == expected[name].shape:
            own[name] = own[twin]
        elif name.endswith("num_batches_tracked"):
            own[name] = expected[name]
    problems = [
        f"{name!r} (expected {_shape(expected.get(name))}, found {_shape(own.get(name))})"
        for name in sorted(expected.keys() | own.keys())
        if _shape(expected.get(name)) != _shape(own.get(name))
    ]
    if problems:
        raise ConfigError(f"weights: {path}: another architecture, first at {problems[0]}")
    fitting = OrderedDict(own)
    fitting._metadata = expected._metadata  # versions of the layers' formats, which renaming loses
    model.load_state_dict(fitting)


def without_prefixes(tensors: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefixes that all names share until one of `expected` is among them."""
    while tensors and not tensors.keys() & expected.keys():
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in tensors)), None)
        if prefix is None:
            break
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _shape(tensor: Tensor | None) -> tuple[int, ...] | str:
    return "none" if tensor is None else tuple(tensor.shape)
