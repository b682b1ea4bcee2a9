"""The largest noise in the weights that the loss tolerates."""

import torch
from torch import Tensor, nn

from robust_flatness.sharpness.adaptive import noisy_loss
from robust_flatness.sharpness.base import Loss, Objective, SharpnessResult

#: Noise is looked for between these multiples of the weights.
SMALLEST, LARGEST = 1e-4, 10.0


def pacbayes_sigma(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    loss: Loss = "ce",
    batch_size: int = 128,
    seed: int = 0,
    rise: float = 0.1,
    samples: int = 4,
    iterations: int = 12,
) -> SharpnessResult:
    r"""1 / sigma^2 for the largest sigma that the mean loss tolerates (after Jiang et al., ICLR 2020).

    .. math:: \mathbb{E}_{\nu \sim N(0, \sigma^2\,\mathrm{diag}(w^2))}\, L(w + \nu) - L(w) \le \text{rise}

    Noise is relative to each weight, so that rescalings of layers change nothing. The source bounds the rise
    of the training *error*; here it is that of the loss. By bisection in log sigma between 1e-4 and 10, the
    same `samples` draws at each of `iterations` halvings. The standard error follows from those of the
    samples at the two ends of the last bracket; None if the rise stays below the bound up to the end of the
    range or above it from its start, where that end counts. Adversarial examples are found anew.

    Raises
    ------
    ValueError
        If a number is not positive.
    """
    for name, value in {"rise": rise, "samples": samples, "iterations": iterations}.items():
        if not value > 0:
            raise ValueError(f"{name}: {value} given, but it must be > 0")
    objective = Objective(model, x, y, loss, batch_size, seed)
    reference = objective.losses().double().mean()

    def excess(log_sigma: float) -> Tensor:
        sigma = 10.0**log_sigma
        losses = [noisy_loss(objective, sigma, sample) for sample in range(samples)]
        # a loss that overflowed has risen, too
        return torch.stack(losses).nan_to_num(nan=torch.inf, posinf=1e9) - reference - rise

    low, high = torch.log10(torch.tensor([SMALLEST, LARGEST], dtype=torch.float64)).tolist()
    at_low, at_high = excess(low), excess(high)
    for end, value in ((low, -at_low.mean()), (high, at_high.mean())):
        if value < 0:
            return SharpnessResult(10.0 ** (-2 * end))
    for _ in range(iterations):
        middle = (low + high) / 2
        found = excess(middle)
        if found.mean() <= 0:
            low, at_low = middle, found
        else:
            high, at_high = middle, found
    value = 10.0 ** (-2 * low)
    if samples == 1:
        return SharpnessResult(value)
    # d value / d rise, from the bracket: the noise of the rise becomes that of the value
    slope = (10.0 ** (-2 * high) - value) / (at_high.mean() - at_low.mean()).item()
    error = abs(slope) * at_low.std().item() / samples**0.5
    return SharpnessResult(value, error)
