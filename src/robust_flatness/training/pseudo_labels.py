"""Pseudo-labels of unlabelled images (Carmon et al., NeurIPS 2019)."""

import math

import torch
from torch import Tensor

from robust_flatness.config import ModelSpec, TrainingSpec, TrainJob
from robust_flatness.data import Dataset
from robust_flatness.errors import TrainingError
from robust_flatness.seeding import derive_seed
from robust_flatness.training.loop import Training

#: Settings of the baseline that the training of the classifier shares; `epsilon` is not used.
SHARED = (
    *("epochs", "batch_size", "optimizer", "learning_rate", "momentum", "weight_decay", "langevin_steps"),
    *("schedule", "milestones", "cycles", "augmentation", "norm", "epsilon"),
)


def pseudo_label(
    dataset: Dataset, model: ModelSpec, training: TrainingSpec, seed: int, device: str = "cpu"
) -> Tensor:
    """Return labels, int64 [n], of the `unlabeled` split, predicted by a standard classifier. The classifier
    is trained on the clean images of the `train` split, with the epochs, batches, rates, optimiser and
    augmentation of `training`. Published pseudo-labels of the data are returned as they are."""
    if "pseudo_labels" in dataset.arrays:
        return torch.from_numpy(dataset.arrays["pseudo_labels"])
    spec = TrainingSpec(**{name: getattr(training, name) for name in SHARED}, adversarial_fraction=0)
    seed = derive_seed(seed, "pseudo-labels")
    job = TrainJob(variant="pseudo-labels", seed=seed, model=model, training=spec)
    run = Training(job, dataset, device)
    for epoch in range(spec.epochs):
        if not math.isfinite(run.epoch(epoch)["train_loss"]):
            raise TrainingError(f"pseudo-labels: the loss became NaN in epoch {epoch}; lower learning_rate")
    network, pool = run.network.eval(), dataset.pixels("unlabeled", device=device)
    with torch.no_grad():
        logits = [network(part.float().div_(255)) for part in pool.split(1024)]
    return torch.cat(logits).argmax(1).cpu()
