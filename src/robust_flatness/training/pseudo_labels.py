"""Pseudo-labels of unlabelled images (Carmon et al., NeurIPS 2019)."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from robust_flatness.architectures import build_model
from robust_flatness.config import ModelSpec, TrainingSpec
from robust_flatness.data import Dataset
from robust_flatness.data.augmentation import augment
from robust_flatness.errors import TrainingError
from robust_flatness.seeding import derive_seed, generator, stream_device
from robust_flatness.training.batches import BatchPlan
from robust_flatness.training.optimizers import Schedule, make_optimizer


def pseudo_label(
    dataset: Dataset, model: ModelSpec, training: TrainingSpec, seed: int, device: str = "cpu"
) -> Tensor:
    """Return labels, int64 [n], of the `unlabeled` split, predicted by a standard classifier. The classifier
    is trained on the clean images of the `train` split, with the epochs, batches, rates, optimiser and
    augmentation of `training`. Published pseudo-labels of the data are returned as they are."""
    if "pseudo_labels" in dataset.arrays:
        return torch.from_numpy(dataset.arrays["pseudo_labels"])
    seed = derive_seed(seed, "pseudo-labels")
    pixels, y = dataset.pixels("train", device=device), dataset.labels("train", device=device)
    stream = generator(seed, "initialisation")
    network = build_model(model, dataset.classes, dataset.mean, dataset.std, stream)
    network = network.to(device, memory_format=torch.channels_last).train()
    optimizer = make_optimizer(training, network.parameters())
    plan = BatchPlan(len(y), training.batch_size, seed, device=stream_device(device))
    schedule = Schedule(training, plan.updates)
    for epoch in range(training.epochs):
        stream = generator(seed, "augmentation", epoch, device=stream_device(device))
        indices, total = plan.epoch(epoch), torch.zeros((), device=device)
        with torch.random.fork_rng([torch.device(device)] if device.startswith("cuda") else []):
            torch.manual_seed(derive_seed(seed, "dropout", epoch))
            for update in range(plan.updates):
                optimizer.param_groups[0]["lr"] = schedule.learning_rate(epoch * plan.updates + update)
                index = next(indices)[0].to(device)
                batch = pixels[index].float().div_(255)
                batch = augment(batch, training.augmentation, stream, dataset.mean)
                optimizer.zero_grad(set_to_none=True)
                loss = F.cross_entropy(network(batch), y[index])
                loss.backward()
                optimizer.step()
                total += loss.detach()
        if not math.isfinite(total.item()):
            raise TrainingError(f"pseudo-labels: the loss became NaN in epoch {epoch}; lower learning_rate")
    network.eval()
    pool = dataset.pixels("unlabeled", device=device)
    with torch.no_grad():
        logits = [network(part.float().div_(255)) for part in pool.split(1024)]
    return torch.cat(logits).argmax(1).cpu()
