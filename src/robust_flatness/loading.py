"""Loading of networks from a user's function, torchvision or RobustBench, with weights from a file."""

import importlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from robust_flatness.boundary import user_code
from robust_flatness.config.kinds import imported
from robust_flatness.config.networks import NetworkSpec, weights_file
from robust_flatness.config.values import meant
from robust_flatness.errors import ConfigError
from robust_flatness.network import Network
from robust_flatness.weights import load_weights, read_weights


class Normalized(nn.Module):
    """(x - mean) / std for each channel, then `model`: for networks that expect normalised images."""

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(list(mean)).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(list(std)).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(((x - self.mean) / self.std).to(x.dtype))


@torch.inference_mode(mode=False)  # tensors made in inference mode have no gradients
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
        lie under keys such as `state_dict`, below a common prefix, and have prefixes of wrappers such as
        `module.`. If several sets fit the network, `FILE:KEY` names one.
    mean, std
        Of the channels, where the network expects normalised images: (x - mean) / std.

    Raises
    ------
    ConfigError
        If the network cannot be made, or the weights do not fit.
    """
    kind, _, name = model.partition(":")
    if not kind or not name:
        raise ConfigError(f"model: {model!r} given; expected package.module:function, torchvision:NAME ...")
    sets = None if weights is None else read_weights(Path(weights))
    if kind == "torchvision":
        with user_code(f"torchvision's {name}"):
            network, preset = _torchvision(name, sets, weights_file(weights or "")[1])
        mean, std = preset if preset and mean is None and std is None else (mean, std)
    elif kind == "robustbench":
        network = _robustbench(name, with_weights=sets is None)
    else:
        factory = imported(model, "model")
        with user_code(f"{model}(), called without arguments,"):
            network = factory()
        if not isinstance(network, nn.Module):
            raise ConfigError(f"model: {model}() returned {type(network).__name__}; expected an nn.Module")
    if sets is not None:
        load_weights(network, sets, Path(weights))
    if mean is not None or std is not None:
        both = hasattr(mean, "__len__") and hasattr(std, "__len__")  # also arrays and tensors
        if not both or len(mean) != len(std) or not all(s > 0 for s in std):
            raise ConfigError("mean, std: expected a number for each channel in both, std above 0")
        network = Normalized(network, mean, std)
    with user_code("evaluation mode"):
        network.eval()
    return network


def load_network(spec: NetworkSpec, name: str, images: Tensor | None, classes: int | None) -> nn.Module:
    """Load a network of an experiment's `models` and try it on `images` (None: not tried); raise
    `ConfigError` if it cannot be loaded, does not take the images, or has another number of classes."""
    try:
        network = load_model(spec.model, spec.weights, mean=spec.mean, std=spec.std)
        found = classes if images is None else Network(network, images).classes
    except ConfigError as error:
        raise ConfigError(f"models.{name}: {error}") from None
    if found != classes:
        raise ConfigError(f"models.{name}: {spec.model} has {found} classes, the data have {classes}")
    return network


def _torchvision(name: str, sets: dict[str, Mapping[str, Tensor]] | None, part: str | None) -> tuple:
    """Return the network and, if pretrained weights are loaded, their (mean, std), else None. The number of
    classes is that of the weights under the key `part` of a file (None: of all its weights)."""
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise ConfigError(f"model: torchvision has no classifier {name!r}{meant(name, known)}")
    if sets is None:
        pretrained = models.get_model_weights(name).DEFAULT
        network = models.get_model(name, weights=pretrained)
        preset = pretrained.transforms()
        return network, (preset.mean, preset.std)
    with torch.device("meta"):
        plain = models.get_model(name, weights=None).state_dict()
    # files keep their tensors in any order: the classes are counted at the last layer of the architecture
    last = [key for key, t in plain.items() if t.ndim in (2, 4) and "aux" not in key.lower()][-1]
    named = [(f".{where}.{key}", t) for where, tensors in sets.items() for key, t in tensors.items()]
    sizes = {len(t) for key, t in named if key.endswith(f".{last}") and (part is None or f".{part}." in key)}
    if len(sizes) > 1:
        raise ConfigError("weights: of networks with different numbers of classes; name one as FILE:KEY")
    classes = sizes.pop() if sizes else len(plain[last])
    return models.get_model(name, weights=None, num_classes=classes), None


def _robustbench(name: str, with_weights: bool) -> nn.Module:
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
    with user_code(f"RobustBench's {name} for {dataset} and {threat}"):
        if with_weights:
            return load(model_name=name, dataset=dataset, threat_model=threat)
        return model_dicts[BenchmarkDataset(dataset)][ThreatModel(threat)][name]["model"]()


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
