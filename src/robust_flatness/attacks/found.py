"""Results of an attack on each example, and the inputs that it has visited."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Found:
    """Result of an attack, per example: the inputs `x_adv` [n, ...] of highest loss, their `loss` [n], the
    highest over all iterates and restarts, and `error` [n], True if any iterate is misclassified."""

    x_adv: Tensor
    loss: Tensor
    error: Tensor

    def lists(self) -> tuple[list[float], list[int]]:
        """Return losses with 6 significant digits, enough for bootstraps, and errors, 0 or 1."""
        return [float(f"{loss:.6g}") for loss in self.loss.tolist()], self.error.int().tolist()

    def rows(self, rows: slice | Tensor) -> "Found":
        """Return the results of the examples `rows`."""
        return Found(self.x_adv[rows], self.loss[rows], self.error[rows])


def better(old: Found, new: Found) -> Found:
    """Return, per example, the result with the higher loss; `error` is True if it is in either result."""
    higher = (new.loss > old.loss) | new.loss.isnan()  # NaN is kept, and reported at the end
    wide = higher.view(-1, *[1] * (new.x_adv.ndim - 1))
    x_adv, loss = torch.where(wide, new.x_adv, old.x_adv), torch.where(higher, new.loss, old.loss)
    return Found(x_adv, loss, old.error | new.error)


def updated(old: Found | None, new: Found, rows: Tensor) -> Found:
    """Return `old` with its `rows` (ascending) replaced by the `better` of these and `new`; changes `old`."""
    if old is None:
        return replace(new, x_adv=new.x_adv.clone())
    if len(rows) == len(old.loss):
        return better(old, new)
    best = better(old.rows(rows), new)
    old.x_adv[rows], old.loss[rows], old.error[rows] = best.x_adv, best.loss, best.error
    return old


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return the highest logit of another class minus that of the label, [n]; positive if misclassified."""
    y = y[:, None]
    return logits.scatter(1, y, -torch.inf).amax(1) - logits.gather(1, y)[:, 0]


def misclassified(logits: Tensor, y: Tensor) -> Tensor:
    """Return which examples are misclassified, [n] bool; targets [n, K] have the largest element as label."""
    return logits.argmax(dim=1) != (y if y.ndim == 1 else y.argmax(dim=1))


class Visited:
    """Inputs visited by an attack for each example, as 64-bit hashes; row i is of example `examples[i]`."""

    def __init__(self, inputs: Tensor, examples: Tensor):
        self._examples = examples
        random = torch.Generator().manual_seed(0)
        factors = torch.randint(-(2**63), 2**63 - 1, (inputs[0].numel() + 1,), generator=random) | 1
        self._factors = factors.to(inputs.device)
        self._seen = set(self._fingerprints(inputs, examples).tolist())

    def new(self, inputs: Tensor, rows: Tensor) -> Tensor:
        """Record iterates of the initial inputs `rows`; return the indices of those new to their example."""
        found = self._fingerprints(inputs, self._examples[rows]).tolist()
        first = {fingerprint: index for index, fingerprint in reversed([*enumerate(found)])}
        new = sorted(first[fingerprint] for fingerprint in first.keys() - self._seen)
        self._seen.update(found)
        return torch.tensor(new, dtype=torch.int64, device=inputs.device)

    def _fingerprints(self, inputs: Tensor, examples: Tensor) -> Tensor:
        """Return 64-bit hashes: multiply the words of each input, xor-shift, multiply, sum modulo 2^64."""
        values = inputs.detach().contiguous().flatten(1)
        lacking = -values.shape[1] % (8 // values.element_size())
        bits = (functional.pad(values, (0, lacking)) if lacking else values).view(torch.int64)
        mixed = bits * self._factors[: bits.shape[1]]
        mixed.bitwise_xor_(mixed >> 29).mul_(self._factors[: bits.shape[1]])
        return mixed.sum(1) + examples * self._factors[-1]
