"""Which examples make up each batch."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from robust_flatness.config import ConfigError
from robust_flatness.seeding import generator


@dataclass(frozen=True)
class BatchPlan:
    """Batches of `batch_size` examples; an epoch has as many as one pass over the `examples`
    labelled ones takes.

    The last, incomplete batch of a pass is kept; only one of a single example is dropped, which
    batch norm cannot use. With a `pool` of further examples the batches are as many and as large,
    but the share `pool_fraction` of each, rounded, comes from the pool, in passes over it: an epoch
    then sees the rest of the labelled examples only, others in each epoch (as in the released code).

    Raises
    ------
    ConfigError
        If no batch is left, or there is no room for labelled examples.
    """

    examples: int
    batch_size: int
    seed: int
    pool: int = 0
    pool_fraction: float = 0.0
    device: str = "cpu"

    def __post_init__(self):
        if self.batch_size - round(self.pool_fraction * self.batch_size) < 1:
            raise ConfigError(
                f"unlabeled_fraction: {self.pool_fraction} of batch_size {self.batch_size} leaves no "
                "labelled example in a batch; lower it or raise batch_size"
            )
        if self.updates < 1:
            raise ConfigError(
                f"batch_size: {self.batch_size} with {self.examples} training examples gives no batch of "
                "at least 2 examples, which batch norm needs"
            )

    @property
    def updates(self) -> int:
        """Batches of an epoch."""
        return sum(1 for _ in self._sizes())

    def _sizes(self) -> Iterator[tuple[int, int]]:
        """Labelled and pool examples of each batch of an epoch."""
        for start in range(0, self.examples, self.batch_size):
            size = min(self.batch_size, self.examples - start)
            extra = round(self.pool_fraction * size)
            if size > 1:
                yield size - extra, extra

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """For each batch of `epoch`, and of more epochs like it without end, the indices of its labelled
        examples and of those from the pool; on `device`, where they are drawn, too.

        The labelled examples are taken from the start of the same order whatever the pool.
        """
        order = generator(self.seed, "batches", epoch, device=self.device)
        pool_order = generator(self.seed, "pool", epoch, device=self.device)
        waiting = torch.empty(0, dtype=torch.int64, device=self.device)
        while True:
            permutation = torch.randperm(self.examples, generator=order, device=self.device)
            start = 0
            for count, extra in self._sizes():
                batch = permutation[start : start + count]
                start += count
                while len(waiting) < extra:
                    more = torch.randperm(self.pool, generator=pool_order, device=self.device)
                    waiting = torch.cat([waiting, more])
                yield batch, waiting[:extra]
                waiting = waiting[extra:]
