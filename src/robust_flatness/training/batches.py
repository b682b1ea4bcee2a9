"""Examples and labels of each batch: order, pool of unlabelled images, label noise."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from robust_flatness.config import TrainingSpec
from robust_flatness.data import Dataset
from robust_flatness.errors import ConfigError
from robust_flatness.seeding import generator


@dataclass(frozen=True)
class BatchPlan:
    """Batches of `batch_size` examples; an epoch has as many as one pass over the `examples` labelled ones.

    The last, incomplete batch is kept unless it is a single example, which batch norm cannot use. With a
    `pool`, the share `pool_fraction` of each batch, rounded, comes from the pool, in passes over it, so an
    epoch contains only some of the labelled examples, different ones each time (as in the released code).
    """

    examples: int
    batch_size: int
    seed: int
    pool: int = 0
    pool_fraction: float = 0.0
    device: str = "cpu"

    def __post_init__(self):
        if round(self.pool_fraction * self.batch_size) == self.batch_size:
            given = f"{self.pool_fraction} of {self.batch_size}"
            raise ConfigError(f"unlabeled_fraction: {given} leaves no labelled example")
        if self.updates < 1:
            given = f"{self.batch_size} of {self.examples} training examples"
            raise ConfigError(f"batch_size: {given} gives no batch of 2")

    @cached_property
    def sizes(self) -> list[tuple[int, int]]:
        """Numbers of labelled and of pool examples in each batch of an epoch."""
        whole, rest = divmod(self.examples, self.batch_size)
        sizes = [self.batch_size] * whole + [rest] * (rest > 1)
        extras = [round(self.pool_fraction * size) for size in sizes]
        return [(size - extra, extra) for size, extra in zip(sizes, extras, strict=True)]

    @property
    def updates(self) -> int:
        """Number of batches in an epoch."""
        return len(self.sizes)

    def epoch(self, epoch: int) -> Iterator[Tensor]:
        """Yield the indices of each batch, without end, on `device`: labelled examples first, then those of
        the pool, whose indices begin at `examples`. The order of the labelled ones does not depend on it."""
        order = generator(self.seed, "batches", epoch, device=self.device)
        pool_order = generator(self.seed, "pool", epoch, device=self.device)
        waiting = torch.empty(0, dtype=torch.int64, device=self.device)
        while True:
            permutation = torch.randperm(self.examples, generator=order, device=self.device)
            for count, extra in self.sizes:
                batch, permutation = permutation[:count], permutation[count:]
                while len(waiting) < extra:
                    more = torch.randperm(self.pool, generator=pool_order, device=self.device)
                    waiting = torch.cat([waiting, more])
                yield torch.cat([batch, waiting[:extra] + self.examples])
                waiting = waiting[extra:]


def training_images(dataset: Dataset, spec: TrainingSpec, device: str, pseudo_labels) -> list[Tensor]:
    """Return uint8 images and labels: the training split and, if used, the pool with its pseudo-labels."""
    pixels, labels = dataset.pixels("train", device=device), dataset.labels("train", device=device)
    if not spec.unlabeled_fraction:
        return [pixels, labels]
    if pseudo_labels is None:
        raise ConfigError("unlabeled_fraction: needs pseudo-labels (`robust-flatness pseudo-label`)")
    pool, pool_labels = dataset.pixels("unlabeled", device=device), torch.as_tensor(pseudo_labels).to(device)
    return [torch.cat([pixels, pool]), torch.cat([labels, pool_labels.long()])]


def noisy_labels(labels: Tensor, rate: float, classes: int, generator: torch.Generator) -> Tensor:
    """Return the labels, each replaced with probability `rate` by one drawn uniformly from all `classes`."""
    source = {"generator": generator, "device": generator.device}
    replaced = torch.rand(labels.shape, **source) < rate
    other = torch.randint(classes, labels.shape, **source)
    return torch.where(replaced.to(labels.device), other.to(labels.device), labels)
