"""Loading of networks from a user's function, torchvision or RobustBench, with weights from a file."""

import importlib
import importlib.util
import re
import sys
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from robust_flatness.boundary import user_code
from robust_flatness.config.kinds import imported
from robust_flatness.config.networks import NetworkSpec, weights_file
from robust_flatness.config.values import meant
from robust_flatness.errors import ConfigError
from robust_flatness.network import Network

#: Keys below which training scripts nest weights beside other things.
NESTED = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params")
#: Parts of names that data-parallel and compiled modules insert.
WRAPPERS = re.compile(r"(?<![^.])(?:module|_orig_mod)\.")
#: Longest prefix, in parts of a name, below which the weights of the network are looked for.
DEEPEST = 3
#: Extensions of files that `torch.save` writes.
TORCH_FILES = (".pt", ".pth", ".bin", ".ckpt", ".tar")


class Normalized(nn.Module):
    """(x - mean) / std for each channel, then `model`: for networks that expect normalised images."""

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(list(mean)).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(list(std)).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(((x - self.mean) / self.std).to(x.dtype))


def without_normalisation(network: nn.Module) -> nn.Module:
    """Return the network inside a `Normalized`, or the network itself."""
    return network.model if isinstance(network, Normalized) else network


def load_model(
    model: str, weights: str | Path | None = None, *,
    mean: Sequence[float] | None = None, std: Sequence[float] | None = None,
) -> nn.Module:  # fmt: skip
    """Load a network in evaluation mode, from inputs [n, C, H, W] in [0, 1] to logits [n, K].

    Parameters
    ----------
    model
        `package.module:function`: a function without arguments that returns the network, imported as from a
        script in the working directory. `torchvision:NAME`: a classifier of torchvision, e.g.
        `torchvision:resnet18`; without `weights` its pretrained ones (downloaded by torchvision) with the
        normalisation that belongs to them. `robustbench:NAME`: a model of RobustBench, CIFAR-10 and
        L-infinity unless NAME is `dataset/threat/NAME`; without `weights` those of the model zoo (downloaded
        by `robustbench`, the extra of that name).
    weights
        File .safetensors, or .pt, .pth and other files of `torch.save`, of which no code is run. Weights may
        lie under a key such as `state_dict`, and have prefixes of wrappers such as `module.` (data-parallel)
        and `_orig_mod.` (compiled).
    mean, std
        Of the channels, where the network expects normalised images: (x - mean) / std.

    Raises
    ------
    ConfigError
        If the network cannot be made, or the weights do not fit.
    """
    kind, _, name = model.partition(":")
    tensors = None if weights is None else read_weights(Path(weights))
    if not kind or not name:
        raise ConfigError(f"model: {model!r} given; expected package.module:function, torchvision:NAME ...")
    if kind == "torchvision":
        network, preset = _torchvision(name, tensors)
        mean, std = preset if preset and not (mean or std) else (mean, std)
    elif kind == "robustbench":
        network = _robustbench(name, with_weights=tensors is None)
    else:
        network = _from_function(model)
    if tensors is not None:
        load_weights(network, tensors, Path(weights))
    if mean is not None or std is not None:
        if mean is None or std is None or len(mean) != len(std) or not all(s > 0 for s in std):
            raise ConfigError("mean, std: expected a number for each channel in both, std above 0")
        network = Normalized(network, mean, std)
    with user_code("evaluation mode"):
        network.eval()
    return network


def load_network(spec: NetworkSpec, name: str, images: Tensor, classes: int) -> nn.Module:
    """Load a network of an experiment's `models` and try it on `images`; raise `ConfigError` if it cannot be
    loaded, does not take the images, or has another number of classes."""
    try:
        network = load_model(spec.model, spec.weights, mean=spec.mean, std=spec.std)
        found = Network(network, images).classes
    except ConfigError as error:
        raise ConfigError(f"models.{name}: {error}") from None
    if found != classes:
        raise ConfigError(f"models.{name}: {spec.model} has {found} classes, the data have {classes}")
    return network


def _from_function(model: str) -> nn.Module:
    factory = imported(model, "model")
    if isinstance(factory, nn.Module):
        raise ConfigError(f"model: {model} is a network; name a function without arguments that returns it")
    with user_code(f"{model}(), called without arguments,"):
        network = factory()
    if not isinstance(network, nn.Module):
        raise ConfigError(f"model: {model}() returned {type(network).__name__}; expected an nn.Module")
    return network


def _torchvision(name: str, tensors: dict[str, Tensor] | None) -> tuple[nn.Module, Any]:
    """Return the network, and (mean, std) of the pretrained weights where these are taken, else None."""
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise ConfigError(f"model: torchvision has no classifier {name!r}{meant(name, known)}")
    if tensors is None:
        pretrained = models.get_model_weights(name).DEFAULT
        with user_code(f"download of torchvision's weights of {name}"):
            network = models.get_model(name, weights=pretrained)
        preset = pretrained.transforms()
        return network, (preset.mean, preset.std)
    with torch.device("meta"):
        plain = models.get_model(name, weights=None).state_dict()
    # files keep their tensors in any order: the classes are counted at the last layer of the architecture
    last = [key for key, t in plain.items() if t.ndim in (2, 4) and "aux" not in key.lower()][-1]
    classes = next((len(t) for key, t in tensors.items() if f".{key}".endswith(f".{last}")), len(plain[last]))
    return models.get_model(name, weights=None, num_classes=classes), None


def _robustbench(name: str, with_weights: bool) -> nn.Module:
    """Return a model of the zoo."""
    try:
        import_robustbench()
        from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel
        from robustbench.model_zoo.models import model_dicts
        from robustbench.utils import load_model as load
    except ImportError as error:
        hint = f"needs robustbench ({error}); pip install 'robust-flatness[robustbench]'"
        raise ConfigError(f"model: 'robustbench:{name}' {hint}") from None
    *where, name = name.split("/")
    dataset, threat = where or ("cifar10", "Linf")
    try:
        entry = model_dicts[BenchmarkDataset(dataset)][ThreatModel(threat)][name]
    except (KeyError, ValueError):
        raise ConfigError(f"model: RobustBench has no model {name!r} for {dataset} and {threat}") from None
    if not with_weights:
        return entry["model"]()
    with user_code(f"download of RobustBench's weights of {name}"):
        return load(model_name=name, dataset=dataset, threat_model=threat)


def import_robustbench() -> ModuleType:
    """Import `robustbench`, whose release 1.1.1 depends on pyautoattack, but calls `autoattack`."""
    if "autoattack" not in sys.modules and not importlib.util.find_spec("autoattack"):
        import pyautoattack
        import pyautoattack.state

        class AutoAttack(pyautoattack.AutoAttack):
            def __init__(self, model, norm, eps, version, device, log_path=None):
                super().__init__(model, norm=norm, eps=eps, version=version, device=device)

            def run_standard_evaluation(self, x, y, bs=250, state_path=None):
                found = super().run_standard_evaluation(x, y, batch_size=bs, state_path=state_path)
                return found[0] if isinstance(found, tuple) else found

        module = ModuleType("autoattack")
        module.AutoAttack = AutoAttack
        sys.modules["autoattack"], sys.modules["autoattack.state"] = module, pyautoattack.state
    return importlib.import_module("robustbench")


def read_weights(path: Path) -> Mapping[str, Tensor]:
    """Read the tensors by name in a .safetensors file, or in one of `torch.save`, without running its code;
    raise `ConfigError` for any other file, and if the file holds several sets of weights. `FILE:KEY` names
    the one at KEY, or those whose names begin with KEY."""
    path, key = weights_file(path)
    if not path.is_file():
        raise ConfigError(f"weights: {path}: {'a folder; give a file' if path.is_dir() else 'no such file'}")
    if path.suffix not in (".safetensors", *TORCH_FILES):
        raise ConfigError(f"weights: {path} given; expected a file .safetensors, {', '.join(TORCH_FILES)}")
    try:
        if path.suffix == ".safetensors":
            return _chosen(load_file(path), path, key)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of scripts, which are refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever unpickling a damaged file raises
        problem = f"cannot be read, or damaged ({type(error).__name__})"
        hint = "of a whole network, save its state_dict alone (no code is run from files)"
        raise ConfigError(f"weights: {path}: {problem}; {hint}") from None
    return _chosen(content, path, key)


def _chosen(content: Any, path: Path, key: str | None) -> Mapping[str, Tensor]:
    """The weights in the content of a file: those that `key` names, or the only ones."""
    if not isinstance(content, Mapping):
        raise ConfigError(f"weights: {path}: holds {type(content).__name__}; expected a state_dict")
    sets = [name for name, value in content.items() if _are_weights(value)]
    if key is not None:
        if key in sets:
            return content[key]
        if not _are_weights(content) or not (found := _below(content, key)):
            there = ", ".join(map(str, sets)) or "none"
            raise ConfigError(f"weights: {path}: no weights at {key!r}; sets of weights in it: {there}")
        return found
    if _are_weights(content):
        return content
    if len(sets) > 1:
        raise ConfigError(f"weights: {path} holds {', '.join(sets)}; name one, as in {path.name}:{sets[0]}")
    nested = sets[0] if sets else next((k for k in NESTED if isinstance(content.get(k), Mapping)), None)
    if nested is None:
        raise ConfigError(f"weights: {path}: no weights by name in it (keys {list(content)[:8]})")
    return _chosen(content[nested], path, None)


def _are_weights(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and bool(content)
        and all(
            isinstance(name, str) and isinstance(value, Tensor) and value.layout == torch.strided
            for name, value in content.items()
        )
    )


def _below(tensors: Mapping[str, Tensor], prefix: str) -> "OrderedDict[str, Tensor]":
    """The tensors whose names begin with `prefix`, and the versions of their layers' formats, without the
    prefix and the names of wrappers."""
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

    Names of wrappers are removed, and so is a prefix of the network's names, beside which a file may hold
    other things. The counter of averaged weights is ignored, counters of batch norms may be missing, and of
    tied tensors one is enough.
    """
    given, whole = OrderedDict(tensors), _below(tensors, "")
    given._metadata = getattr(tensors, "_metadata", None)
    if path.suffix == ".safetensors":
        given._metadata = whole._metadata = model.state_dict()._metadata
    if not _misfit(model, given) or not (problem := _misfit(model, whole)):
        return
    parts = [name.split(".") for name in whole]
    prefixes = {".".join(names[:depth]) for names in parts for depth in range(1, DEEPEST + 1)}
    fitting = [prefix for prefix in sorted(prefixes) if not _misfit(model, _below(whole, prefix))]
    if not fitting:
        raise ConfigError(f"weights: {path}: another architecture, first at {problem}")
    if len(fitting) > 1:
        several = f"holds several sets of weights: {', '.join(fitting)}"
        raise ConfigError(f"weights: {path} {several}; name one, as in {path.name}:{fitting[0]}")
    _misfit(model, _below(whole, fitting[0]))


def _misfit(model: nn.Module, tensors: Mapping[str, Tensor]) -> str:
    """Load `tensors` into `model`; return what does not fit, or an empty text."""
    expected = model.state_dict()
    try:
        missing, unexpected = model.load_state_dict(tensors, strict=False)
    except RuntimeError:  # other shapes
        missing = unexpected = [
            name for name, t in expected.items() if _shape(t) != _shape(tensors.get(name))
        ]
    loaded = {t.data_ptr() for name, t in expected.items() if name not in missing}
    for name in [*missing, *unexpected]:
        tied = name in expected and name not in tensors and expected[name].data_ptr() in loaded
        if not (tied or name == "n_averaged" or name.endswith("num_batches_tracked")):
            return f"{name!r} (expected {_shape(expected.get(name))}, found {_shape(tensors.get(name))})"
    return ""


def _shape(tensor: Tensor | None) -> tuple[int, ...] | str:
    return "none" if tensor is None else tuple(tensor.shape)
