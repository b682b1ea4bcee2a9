"""Weights from files: reading them without running code, and loading them into a network."""

import re
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from robust_flatness.config.networks import weights_file
from robust_flatness.errors import ConfigError

#: Keys under which training scripts commonly store weights.
NESTED = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params")
#: Parts of names that data-parallel and compiled modules insert.
WRAPPERS = re.compile(r"(?<![^.])(?:module|_orig_mod)\.")
#: Maximum length, in name components, of a prefix that is stripped to find the network's weights.
DEEPEST = 3


def read_weights(path: Path) -> Mapping[str, Tensor]:
    """Read the tensors by name in a .safetensors file, or in one of `torch.save`, without running its code;
    raise `ConfigError` if that is impossible, or the file holds several sets of weights. `FILE:KEY` names the
    one at KEY, or those whose names begin with KEY."""
    path, key = weights_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of scripts, which are refused below
            safe = path.suffix == ".safetensors"
            content = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever unpickling a damaged file raises
        problem = getattr(error, "strerror", None) or f"cannot be read ({type(error).__name__})"
        hint = "expected a .safetensors file, or a state_dict saved by torch.save (no code is run from files)"
        raise ConfigError(f"weights: {path}: {problem}; {hint}") from None
    return _chosen(content, path, key)


def _chosen(content: Any, path: Path, key: str | None) -> Mapping[str, Tensor]:
    """Return the weights in the content of a file: those at `key`, or the only ones."""
    content = content if isinstance(content, Mapping) else {}
    sets = {name: value for name, value in content.items() if _are_weights(value)}
    there = ", ".join(map(str, sets)) or "none"
    if key is not None:
        found = sets.get(key) or (_below(content, key) if _are_weights(content) else None)
        if not found:
            raise ConfigError(f"weights: {path}: no weights at {key!r}; sets of weights in it: {there}")
        return found
    if _are_weights(content):
        return content
    if len(sets) > 1:
        raise ConfigError(f"weights: {path} holds {there}; name one, as in {path.name}:{next(iter(sets))}")
    nested = [*sets.values(), *(content[k] for k in NESTED if isinstance(content.get(k), Mapping))]
    if not nested:
        raise ConfigError(f"weights: {path}: no weights by name in it (keys {list(content)[:8]})")
    return _chosen(nested[0], path, None)


def _are_weights(content: Any) -> bool:
    if not isinstance(content, Mapping) or not content:
        return False
    return all(
        isinstance(name, str) and isinstance(tensor, Tensor) and tensor.layout == torch.strided
        for name, tensor in content.items()
    )


def _below(tensors: Mapping[str, Tensor], prefix: str) -> "OrderedDict[str, Tensor]":
    """Return the tensors below `prefix`, and the format versions of their layers, with the prefix and the
    names of wrappers removed."""
    start = f"{prefix}." if prefix else ""

    def renamed(entries: Mapping[str, Any], end: str) -> dict[str, Any]:
        names = {name: WRAPPERS.sub("", name + end) for name in entries}
        kept = {name: new for name, new in names.items() if new.startswith(start)}
        return {new.removeprefix(start).removesuffix(end): entries[name] for name, new in kept.items()}

    found = OrderedDict(renamed(tensors, ""))
    if hasattr(tensors, "_metadata"):
        found._metadata = OrderedDict(renamed(tensors._metadata, "."))
    return found


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load `tensors` into `model` by `load_state_dict`, with the versions of the layers' formats that the
    file holds; a .safetensors file holds none and counts as current. Raise `ConfigError` if they do not fit.

    Names of wrappers are removed, and so is a common prefix of the network's names; other tensors of the file
    are ignored then. The counter of averaged weights is ignored, counters of batch norms may be missing, and
    one of several tied tensors is enough.
    """
    path, _ = weights_file(path)
    given, whole = OrderedDict(tensors), _below(tensors, "")
    given._metadata = getattr(tensors, "_metadata", None)
    current = model.state_dict()._metadata if path.suffix == ".safetensors" else None
    if not _misfit(model, given, current) or not (problem := _misfit(model, whole, current)):
        return
    parts = [name.split(".") for name in whole]
    prefixes = {".".join(names[:depth]) for names in parts for depth in range(1, DEEPEST + 1)}
    below = {prefix: _below(whole, prefix) for prefix in sorted(prefixes)}
    fitting = [prefix for prefix, part in below.items() if not _misfit(model, part, current)]
    if not fitting:
        raise ConfigError(f"weights: {path}: another architecture, first at {problem}")
    if len(fitting) > 1:
        several = f"holds several sets of weights: {', '.join(fitting)}"
        raise ConfigError(f"weights: {path} {several}; name one, as in {path.name}:{fitting[0]}")
    _misfit(model, below[fitting[0]], current)


def _misfit(model: nn.Module, tensors: "OrderedDict[str, Tensor]", versions: Any) -> str:
    """Load `tensors` into `model`, with the format `versions` of its layers (None: their own); return what
    does not fit, or an empty text."""
    expected = model.state_dict()
    if versions is not None:
        tensors._metadata = versions
    try:
        missing, unexpected = model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:  # other shapes, for example; the first of them
        heading, *problems = str(error).splitlines()
        return problems[0].strip() if problems else heading
    loaded = {t.data_ptr() for name, t in expected.items() if name not in missing}
    for name in [*missing, *unexpected]:
        tied = name in expected and name not in tensors and expected[name].data_ptr() in loaded
        if not (tied or name == "n_averaged" or name.endswith("num_batches_tracked")):
            return f"{name!r} ({'missing' if name in expected else 'unexpected'})"
    return ""
