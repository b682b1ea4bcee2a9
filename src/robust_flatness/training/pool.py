"""The images without labels that some batches are filled up with."""

import torch
from torch import Tensor

from robust_flatness.config import ConfigError, TrainingSpec
from robust_flatness.data import Dataset


def pool_of(dataset: Dataset, spec: TrainingSpec, device: str, pseudo_labels) -> tuple[Tensor, Tensor]:
    """Images, uint8, and pseudo-labels of the pool; none where it is not used.

    Raises
    ------
    ConfigError
        If the pseudo-labels are missing, or no labels of these images.
    """
    if not spec.unlabeled_fraction:
        return dataset.pixels("unlabeled", 0, device), dataset.labels("train", 0, device)
    if pseudo_labels is None:
        raise ConfigError(
            f"unlabeled_fraction: {spec.unlabeled_fraction} needs pseudo-labels of the unlabelled images; "
            "make them with `robust-flatness pseudo-label`"
        )
    labels = torch.as_tensor(pseudo_labels).to(device)
    size = dataset.size("unlabeled")
    if labels.shape != (size,) or size == 0 or labels.is_floating_point():
        raise ConfigError(
            f"pseudo_labels: {labels.dtype} of shape {tuple(labels.shape)}; expected an integer label for "
            f"each of the {size} unlabelled images"
        )
    if labels.min() < 0 or labels.max() >= dataset.classes:
        raise ConfigError(
            f"pseudo_labels: from {int(labels.min())} to {int(labels.max())}; "
            f"allowed are 0 to {dataset.classes - 1}"
        )
    return dataset.pixels("unlabeled", device=device), labels.long()
