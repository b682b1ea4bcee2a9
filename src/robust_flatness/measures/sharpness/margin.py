"""The margin of the logits, clean or under attack."""

import torch

from robust_flatness.measures.objective import Estimate, Objective, of_objective
from robust_flatness.seeding import generator


@of_objective
def margin(objective: Objective, percentile: float = 10.0, resamples: int = 200) -> Estimate:
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
    y = objective.y[:, None]
    with torch.no_grad():
        logits = torch.cat([objective.unfolded.logits(objective.inputs[part]) for part in objective.parts])
    others = logits.scatter(1, y, -torch.inf).amax(1)
    margins = (logits.gather(1, y)[:, 0] - others).double().cpu()
    drawn = torch.randint(len(y), (resamples, len(y)), generator=generator(objective.seed, "margin"))
    spread = margins[drawn].quantile(percentile / 100, dim=1).std().item()
    return Estimate(margins.quantile(percentile / 100).item(), spread)
