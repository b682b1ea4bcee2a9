"""Inputs that an attack has visited."""

import torch
from torch import Tensor
from torch.nn import functional


class Visited:
    """The inputs that each example has visited, as fingerprints of 64 bits."""

    def __init__(self, inputs: Tensor, examples: Tensor):
        self._examples = examples
        random = torch.Generator().manual_seed(0)
        factors = torch.randint(-(2**63), 2**63 - 1, (inputs[0].numel() + 1,), generator=random) | 1
        self._factors = factors.to(inputs.device)
        self._seen = set(self._fingerprints(inputs, examples).tolist())

    def new(self, inputs: Tensor, rows: Tensor) -> Tensor:
        """Return the indices of those inputs that their example visits for the first time, and record all.

        `rows` are the rows of the first inputs from which they come.
        """
        first = []
        for index, fingerprint in enumerate(self._fingerprints(inputs, self._examples[rows]).tolist()):
            if fingerprint not in self._seen:
                self._seen.add(fingerprint)
                first.append(index)
        return torch.tensor(first, dtype=torch.int64, device=inputs.device)

    def _fingerprints(self, inputs: Tensor, examples: Tensor) -> Tensor:
        """Linear in the bits of the values, twice, with a mixing step in between, modulo 2^64."""
        values = inputs.detach().contiguous().flatten(1)
        lacking = -values.shape[1] % (8 // values.element_size())
        bits = (functional.pad(values, (0, lacking)) if lacking else values).view(torch.int64)
        mixed = bits * self._factors[: bits.shape[1]]
        mixed.bitwise_xor_(mixed >> 29).mul_(self._factors[: bits.shape[1]])
        return mixed.sum(1) + examples * self._factors[-1]
