"""Networks of others as checkpoints: loaded once, checked on the data, kept with what they are."""

from pathlib import Path

import torch
from torch import Tensor, nn

from robust_flatness.config.networks import NetworkSpec
from robust_flatness.data import Dataset
from robust_flatness.errors import ConfigError
from robust_flatness.models.checkpoint import LOADED, Metadata, save_checkpoint
from robust_flatness.models.inference import InferenceModel
from robust_flatness.models.loading import Normalized, load_model, without_normalisation


def fitting(spec: NetworkSpec, name: str, images: Tensor, classes: int) -> nn.Module:
    """The network, in evaluation mode.

    Raises
    ------
    ConfigError
        If it cannot be loaded, does not take the images, or has not so many classes.
    """
    try:
        network = load_model(spec.model, spec.weights, mean=spec.mean, std=spec.std)
        found = InferenceModel(network, images).classes
    except ConfigError as error:
        raise ConfigError(f"models.{name}: {error}") from None
    if found != classes:
        raise ConfigError(
            f"models.{name}: {spec.model} has {found} classes (logits [n, {found}]), the data have {classes}"
        )
    return network


def check_network(spec: NetworkSpec, name: str, shape: tuple[int, int], classes: int) -> None:
    """Raise `ConfigError` unless the network fits images of this shape (channels and side)."""
    channels, side = shape
    fitting(spec, name, torch.full((2, channels, side, side), 0.5), classes)


def import_network(spec: NetworkSpec, dataset: Dataset, path: Path, name: str, seed: int) -> None:
    """Write the network, called `name` in tables, to `path`, as a checkpoint that `load_checkpoint` reads.

    Raises
    ------
    ConfigError
        As `fitting`.
    """
    network = fitting(spec, name, dataset.images("test", 2), dataset.classes)
    mean, std = (), ()
    if isinstance(network, Normalized):
        mean, std = (tuple(part.flatten().tolist()) for part in (network.mean, network.std))
    metadata = Metadata(
        model={LOADED: spec.model},
        classes=dataset.classes,
        mean=mean,
        std=std,
        variant=name,
        seed=seed,
        epoch=None,
    )
    save_checkpoint(path, without_normalisation(network), metadata)
