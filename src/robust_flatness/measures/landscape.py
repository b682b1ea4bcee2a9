"""The robust loss along directions in weight space: the block `landscape`."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from robust_flatness.config.measures import AttackSpec, FirstExamples, MeasureSettings, attack_defaults
from robust_flatness.config.values import Count, Integer, Positive, Precision
from robust_flatness.config.variants import BASELINE
from robust_flatness.measures.base import MORE_ROBUST, Examples, Measure, Metric, Network, Record

#: Kinds of directions, and the units by which they are normalised.
DIRECTIONS, NORMALISATIONS = ("random", "adversarial", "hessian"), ("layer", "filter")
#: Names of metrics by direction and normalisation.
CURVES = {(way, part): f"{way}_{part}" for way in DIRECTIONS for part in NORMALISATIONS}
METRICS = {
    name: Metric(
        None, f"RLoss along {way} directions, normalised by {part}", "loss", MORE_ROBUST, splits=("test",),
        count="landscape_examples",
    )
    for (way, part), name in CURVES.items()
}  # fmt: skip


class LandscapeSettings(MeasureSettings):
    """RLoss along directions in weight space, at `points` values of s in [-1, 1]."""

    points: Annotated[Integer, Field(ge=3)] = 51
    attack: AttackSpec = attack_defaults(steps=10, restarts=1)
    random_directions: Count = 10
    adversarial_directions: Count = 10
    random_scale: Positive = 0.5
    adversarial_scale: Positive = 0.025
    hessian_scale: Positive = 0.5
    adversarial_steps: Count = 20
    examples: Annotated[Count, FirstExamples("test", 128)]
    precision: Precision = "float32"

    def passes(self, held_out: int) -> int:
        directions = len(NORMALISATIONS) * (self.random_directions + self.adversarial_directions + 1)
        return directions * self.points * self.examples * self.attack.passes


def landscape(net: Network, data: Examples, settings: LandscapeSettings) -> Iterator[Record]:
    """Yield RLoss along random, adversarial and Hessian directions."""
    from robust_flatness.measures.surfaces import loss_landscape

    x, y = data.examples("test", settings.examples)
    options = {"weight_bound": data.weight_bound, "loss": data.loss, "seed": data.derived_seed("landscape")}
    held_out = data.examples("early_stopping")
    yield from loss_landscape(net, x, y, settings=settings, held_out=held_out, **options)


MEASURE = Measure("landscape", LandscapeSettings, landscape, METRICS, by_default=(BASELINE,), held_out=True)
