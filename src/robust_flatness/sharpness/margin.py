"""The margin of the logits, clean or under attack."""

import torch
from torch import Tensor, nn

from robust_flatness.seeding import generator
from robust_flatness.sharpness.base import Loss, Objective, SharpnessResult


def margin(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    loss: Loss = "ce",
    batch_size: int = 128,
    seed: int = 0,
    percentile: float = 10.0,
    resamples: int = 200,
) -> SharpnessResult:
    r"""A percentile of the margin :math:`z_y - \max_{k \ne y} z_k` (as in Kim et al., NeurIPS 2023).

    z are the logits of x or, in the robust loss, of the adversarial example of highest loss. Larger is
    better: rankings of sharpness reverse its sign. The standard error is a bootstrap's over examples.

    Raises
    ------
    ValueError
        If `percentile` is not between 0 and 100.
    """
    if not 0 <= percentile <= 100:
        raise ValueError(f"percentile: {percentile} given; allowed are 0 to 100")
    objective = Objective(model, x, y, loss, batch_size, seed)
    with torch.no_grad():
        logits = torch.cat(
            [objective.logits(objective.weights, objective.inputs[p]) for p in objective.parts]
        )
    own = logits.gather(1, y[:, None])[:, 0]
    others = logits.scatter(1, y[:, None], -torch.inf).amax(1)
    margins = (own - others).double().cpu()
    drawn = torch.randint(len(x), (resamples, len(x)), generator=generator(seed, "margin"))
    spread = margins[drawn].quantile(percentile / 100, dim=1).std().item()
    return SharpnessResult(margins.quantile(percentile / 100).item(), spread)
