"""Anyone's network: from a function, torchvision or RobustBench, with weights from a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from robust_flatness.config.kinds import imported
from robust_flatness.errors import ConfigError
from robust_flatness.models.robustbench import import_robustbench
from robust_flatness.models.weights import load_weights, read_weights, without_wrappers


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
    """The network itself, which takes normalised images if it is a `Normalized` one."""
    return network.model if isinstance(network, Normalized) else network


def load_model(
    model: str,
    weights: str | Path | None = None,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Module:
    """A network in evaluation mode, from inputs [n, C, H, W] in [0, 1] to logits [n, K].

    Parameters
    ----------
    model
        `package.module:function`: a function without arguments that makes the network, found as from a
        script in the working directory.
        `torchvision:NAME`: a classifier of torchvision, e.g. `torchvision:resnet18`; without `weights`
        its pretrained ones (downloaded by torchvision) with the normalisation that belongs to them.
        `robustbench:NAME`: a model of RobustBench, CIFAR-10 and L-infinity unless NAME is
        `dataset/threat/NAME`; without `weights` those of the model zoo (downloaded by `robustbench`,
        the extra of that name).
    weights
        File .safetensors, or .pt, .pth and other files of `torch.save`, of which no code is run.
        Weights may lie under a key such as `state_dict`, and have prefixes of wrappers such as
        `module.` (data-parallel) and `_orig_mod.` (compiled).
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
        raise ConfigError(
            f"model: {model!r} given; expected package.module:function, torchvision:NAME or robustbench:NAME"
        )
    if kind == "torchvision":
        network, own = _torchvision(name, tensors)
        mean, std = (mean, std) if own is None or mean or std else own
    elif kind == "robustbench":
        network = _robustbench(name, tensors is not None)
    else:
        network = _made(model)
    if tensors is not None:
        load_weights(network, tensors, Path(weights))
    unset = next((name for name, tensor in network.state_dict().items() if _is_unset(tensor)), None)
    if unset is not None:
        raise ConfigError(f"model: {unset} has no values (torch's meta device); make the network on the CPU")
    return _normalized(network, mean, std).eval()


def _is_unset(tensor: object) -> bool:
    return isinstance(tensor, Tensor) and tensor.is_meta


def _normalized(network: nn.Module, mean: Sequence[float] | None, std: Sequence[float] | None) -> nn.Module:
    if mean is None and std is None:
        return network
    if mean is None or std is None or len(mean) != len(std) or not all(s > 0 for s in std):
        raise ConfigError(
            f"mean, std: {mean} and {std} given; expected a number for each channel in both, std above 0"
        )
    return Normalized(network, mean, std)


def _made(model: str) -> nn.Module:
    """What the function `package.module:name` returns."""
    factory = imported(model, "model")
    if isinstance(factory, nn.Module):
        raise ConfigError(f"model: {model} is a network; name a function without arguments that returns it")
    try:
        network = factory()
    except (Exception, SystemExit) as error:  # whatever a user's function raises
        hint = "; it must work without arguments" if isinstance(error, TypeError) else ""
        raise ConfigError(f"model: {model}() failed ({type(error).__name__}: {error}){hint}") from error
    if not isinstance(network, nn.Module):
        raise ConfigError(f"model: {model}() returned {type(network).__name__}; expected an nn.Module")
    return network


def _torchvision(
    name: str, tensors: Mapping[str, Tensor] | None
) -> tuple[nn.Module, tuple[Sequence[float], Sequence[float]] | None]:
    """The network, and mean and std of the pretrained weights where these are taken."""
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        import difflib

        close = difflib.get_close_matches(name, known, 3)
        meant = f"; did you mean {' or '.join(close)}?" if close else ""
        raise ConfigError(f"model: torchvision has no classifier {name!r}{meant}")
    if tensors is not None:
        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        network = models.get_model(
            name, weights=None, num_classes=_classes(name, tensors, options), **options
        )
        if options and not any("aux" in key.lower() for key in tensors):
            # the classifiers beside the network are of use in training alone, and often left out of files
            network.aux_logits = False
            for key in ("aux1", "aux2", "AuxLogits"):
                if hasattr(network, key):
                    setattr(network, key, None)
        return network, None
    pretrained = models.get_model_weights(name).DEFAULT
    try:
        network = models.get_model(name, weights=pretrained)
    except OSError as error:
        raise ConfigError(
            f"model: the weights of torchvision's {name} cannot be downloaded ({error})"
        ) from None
    preset = pretrained.transforms()
    return network, (preset.mean, preset.std)


def _classes(name: str, tensors: Mapping[str, Tensor], options: Mapping[str, bool]) -> int:
    """The number of classes of a classifier of torchvision: outputs of its last layer, whose name it tells;
    files keep their tensors in any order."""
    from torchvision import models

    with torch.device("meta"):
        plain = models.get_model(name, weights=None, **options).state_dict()
    last = [key for key, t in plain.items() if t.ndim in (2, 4) and "aux" not in key.lower()][-1]
    return len(without_wrappers(tensors).get(last, plain[last]))


def _robustbench(name: str, bare: bool) -> nn.Module:
    """A model of the zoo; with `bare`, without its weights."""
    try:
        import_robustbench()
        from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel
        from robustbench.model_zoo.models import model_dicts
        from robustbench.utils import load_model as load
    except ImportError as error:
        raise ConfigError(
            f"model: 'robustbench:{name}' needs the package robustbench ({error}); "
            "pip install 'robust-flatness[robustbench]'"
        ) from None
    *where, name = name.split("/")
    dataset, threat = where or ("cifar10", "Linf")
    try:
        kinds = model_dicts[BenchmarkDataset(dataset)][ThreatModel(threat)]
        entry = kinds[name]
    except (KeyError, ValueError):
        raise ConfigError(f"model: RobustBench has no model {name!r} for {dataset} and {threat}") from None
    if bare:
        return entry["model"]()
    try:
        return load(model_name=name, dataset=dataset, threat_model=threat)
    except OSError as error:
        raise ConfigError(f"model: the weights of {name} cannot be downloaded ({error})") from None
