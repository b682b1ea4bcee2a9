"""Weights from files: reading them without running code, and loading them into a network."""

import copy
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from robust_flatness.config.networks import weights_file
from robust_flatness.errors import ConfigError

#: Parts of names that data-parallel and compiled modules insert.
WRAPPERS = re.compile(r"(?<![^.])(?:module|_orig_mod)\.")
#: Names in torchvision's files of DenseNets, such as `norm.1`, which are `norm1` in the network.
OLDER = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(?=[12]\.)")
#: Maximum length, in name components, of a prefix that is stripped to find the network's weights.
DEEPEST = 4


def read_weights(path: Path) -> dict[str, "OrderedDict[str, Tensor]"]:
    """Read the sets of tensors by name in a .safetensors file, or in one of `torch.save`, without running its
    code, each under the keys at which it lies, joined by dots; raise `ConfigError` if there is none."""
    path, _ = weights_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of scripts, which are refused below
            safe = path.suffix == ".safetensors"
            content = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever unpickling a damaged file raises
        problem = getattr(error, "strerror", None) or f"cannot be read ({type(error).__name__})"
        hint = "expected a .safetensors file, or a state_dict saved by torch.save (no code is run from files)"
        raise ConfigError(f"weights: {path}: {problem}; {hint}") from None
    if sets := dict(_sets(content, "")):
        return sets
    keys = list(content)[:8] if isinstance(content, Mapping) else type(content).__name__
    raise ConfigError(f"weights: {path}: no weights by name in it ({keys})")


def _sets(content: Any, where: str) -> Iterator[tuple[str, "OrderedDict[str, Tensor]"]]:
    if not isinstance(content, Mapping):
        return
    tensors = OrderedDict()
    for name, value in content.items():
        yield from _sets(value, f"{where}.{name}".lstrip("."))
        dense = isinstance(value, Tensor) and value.layout == torch.strided
        if isinstance(name, str) and (dense or name.endswith("_extra_state")):
            tensors[name] = value
    if tensors:
        tensors._metadata = getattr(content, "_metadata", None)
        yield where, tensors


def load_weights(model: nn.Module, sets: Mapping[str, Mapping[str, Tensor]], path: Path) -> None:
    """Load into `model` by `load_state_dict` the tensors of the only one of `sets` that fits, with the
    versions of the layers' formats that the file holds (a .safetensors file holds none and counts as
    current). Raise `ConfigError` if none or several fit; `FILE:KEY` chooses the set at KEY, or the tensors
    whose names begin with KEY.

    Names of wrappers are ignored, and a common prefix of the network's names is removed; other tensors are
    ignored then. The counter of averaged weights is ignored, counters of batch norms may be missing, and one
    of several tied tensors is enough.
    """
    path, key = weights_file(path)
    versions = model.state_dict()._metadata if path.suffix == ".safetensors" else None
    fitting, problems = {}, {}
    for where, tensors in sets.items():
        parts = [name.split(".") for name in tensors]
        prefixes = {".".join(names[:depth]) for names in parts for depth in range(1, DEEPEST + 1)}
        found: dict[str, Mapping[str, Tensor]] = {}
        for prefix in ["", *sorted(prefixes, key=lambda name: (name.count("."), name))]:
            if not any(f"{prefix}.".startswith(f"{outer}." if outer else "") for outer in found):
                part = _below(tensors, prefix)
                problem = _misfit(model, part, versions)
                problems.setdefault(len(tensors), problem)
                if not problem:
                    found[prefix] = part
        if found and "" not in found:  # averaged weights below a prefix, beside plain ones without
            rest = _below(tensors, "", without=tuple(f"{prefix}." for prefix in found))
            found |= {} if _misfit(model, rest, versions) else {"": rest}
        fitting |= {".".join(filter(None, (where, prefix))) or ".": part for prefix, part in found.items()}
    chosen = [key] if key in fitting else [n for n in fitting if key is None or f".{key}." in f".{n}."]
    there = ", ".join(fitting)
    if not fitting:
        raise ConfigError(f"weights: {path}: another architecture, first at {problems[max(problems)]}")
    if not chosen:
        raise ConfigError(f"weights: {path}: no weights at {key!r}; sets of weights in it: {there}")
    if len(chosen) > 1:
        several = f"holds several sets of weights: {', '.join(chosen)}"
        raise ConfigError(f"weights: {path} {several}; name one, as in {path.name}:{chosen[0]}")
    _misfit(model, fitting[chosen[0]], versions)


def _below(
    tensors: Mapping[str, Tensor], prefix: str, without: tuple[str, ...] = ()
) -> "OrderedDict[str, Tensor]":
    """Return the tensors below `prefix`, which is removed from their names, with their layers' versions,
    except those whose names begin with one of `without`."""
    start = f"{prefix}." if prefix else ""
    names = [name for name in tensors if name.startswith(start) and not name.startswith(without)]
    found = OrderedDict((name.removeprefix(start), tensors[name]) for name in names)
    layers = {f"{name}.": version for name, version in (getattr(tensors, "_metadata", None) or {}).items()}
    kept = {name: version for name, version in layers.items() if name.startswith(start)}
    found._metadata = {name.removeprefix(start).removesuffix("."): v for name, v in kept.items()}
    return found


def _plain(name: str) -> str:
    return OLDER.sub(r"\1", WRAPPERS.sub("", name))


def _misfit(model: nn.Module, tensors: Mapping[str, Tensor], versions: Any) -> str:
    """Load `tensors` into `model`, with the format `versions` of its layers (None: their own); return what
    does not fit, or an empty text."""
    expected = model.state_dict()
    own = {_plain(name): name for name in expected} | {name: name for name in expected}
    layers = {_plain(f"{name}."): name for name, _ in model.named_modules()}
    names = {name: own.get(name) or own.get(_plain(name), _plain(name)) for name in tensors}
    if len({*names.values()}) < len(names):
        return "two tensors of one name"
    # layers may convert older formats in place
    copies = OrderedDict((new, copy.deepcopy(tensors[name])) for name, new in names.items())
    older = getattr(tensors, "_metadata", None) or {}
    older = {layers.get(_plain(f"{name}."), name): version for name, version in older.items()}
    copies._metadata = older if versions is None else versions
    try:
        missing, unexpected = model.load_state_dict(copies, strict=False)
    except RuntimeError as error:  # other shapes, for example; the first of them
        heading, *problems = str(error).splitlines()
        return problems[0].strip() if problems else heading
    except Exception as error:  # whatever a layer's own conversion raises
        return f"{type(error).__name__}: {error}"
    places = {name: t.data_ptr() for name, t in expected.items() if isinstance(t, Tensor)}
    loaded = {place for name, place in places.items() if name not in missing}
    for name in [*missing, *unexpected]:
        tied = name not in copies and places.get(name) in loaded
        if not (tied or name == "n_averaged" or name.endswith("num_batches_tracked")):
            return f"{name!r} ({'missing' if name in expected else 'unexpected'})"
    return ""
