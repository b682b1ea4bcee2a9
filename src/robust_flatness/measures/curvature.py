"""Curvature of the loss layer by layer, and the weight-curvature index: the block `curvature`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

from robust_flatness.config.measures import (
    AttackSpec,
    FirstExamples,
    MeasureSettings,
    TrainExamples,
    attack_defaults,
)
from robust_flatness.config.values import Count, Precision, Size
from robust_flatness.measures.base import FLATTER, LOSSES, SPLITS, Measure, Metric, Record
from robust_flatness.measures.cost import attack_passes
from robust_flatness.measures.examples import BATCH_SIZE, Examples, ball, pgd, splits_of
from robust_flatness.measures.layers import USUAL
from robust_flatness.runtime.progress import track
from robust_flatness.seeding import derive_seed

if TYPE_CHECKING:
    from robust_flatness.measures.objective import Objective
    from robust_flatness.network import Network

#: Random vectors of a trace, and steps of Lanczos' method.
VECTORS, STEPS = 20, 40
INDEX = "weight_curvature_index"
_OF_LAYERS = {"direction": FLATTER, "by_loss": True, "splits": SPLITS, "unnamed": "train"}
METRICS = {
    INDEX: Metric(
        INDEX, "weight-curvature index, {loss}", direction=FLATTER, by_loss=True, splits=("train",),
        unnamed="train", count="curvature_{split}_examples",
    ),
    "norm": Metric("layer_norm", "Frobenius norm of the weights", "setting"),
    "trace": Metric("layer_trace", "trace of the Hessian, {loss}", **_OF_LAYERS),
    "eigenvalue": Metric("layer_eigenvalue", "largest Hessian eigenvalue, {loss}", **_OF_LAYERS),
}  # fmt: skip


class OnBothLosses(MeasureSettings):
    """Settings shared by measures of both the clean and the robust loss."""

    attack: AttackSpec = attack_defaults(steps=20, restarts=1)
    train_examples: TrainExamples
    test_examples: Annotated[Size, FirstExamples("test")] = 0
    """0: on training examples alone."""
    batch_size: Count = BATCH_SIZE
    precision: Precision = "float32"


class CurvatureSettings(OnBothLosses):
    """Curvature of the loss layer by layer, and the weight-curvature index on training examples."""

    vectors: Count = VECTORS
    """Random vectors of the traces."""
    steps: Size = STEPS
    """Steps of Lanczos' method for the largest eigenvalues; 0: traces and index alone."""


def objectives(
    net: "Network", data: Examples, settings: OnBothLosses
) -> Iterator[tuple["Objective", dict[str, Any]]]:
    """Yield the clean and the robust loss on each requested split, with the fields common to their records.
    Adversarial examples equal those of the block `sharpness` if the settings are equal."""
    attack, seed = pgd(settings.attack, settings.precision), derive_seed(data.seed, "sharpness")
    for split in splits_of(settings):
        count = getattr(settings, f"{split}_examples")
        for loss in track(LOSSES, "loss"):
            given = None if loss == "ce" else attack
            where = {"loss": loss, "split": split, **ball(given), "n": count}
            yield data.objective(net, split, count, given, settings.batch_size, seed), where


def curvature(net: "Network", data: Examples, settings: CurvatureSettings) -> Iterator[Record]:
    """Yield trace and largest eigenvalue of each layer's Hessian block for both losses, with the layer as
    `coordinate`, and the weight-curvature index on training examples."""
    from robust_flatness.measures.objective import Estimate
    from robust_flatness.measures.sharpness.curvature import index_of, layer_curvature

    for name, weight in net.weights().items():
        yield Record("norm", weight.norm().item(), coordinate=name)
    for objective, where in objectives(net, data, settings):
        layers = layer_curvature.of(objective, settings.vectors, settings.steps)
        if where["split"] == "train":
            index = index_of(layers)
            yield Record(INDEX, index.value, index.standard_error, **where)
        for name, layer in layers.items():
            where["coordinate"] = name
            trace = Estimate.mean(layer.samples)
            yield Record("trace", trace.value, trace.standard_error, **where)
            if layer.eigenvalue is not None:
                yield Record("eigenvalue", layer.eigenvalue, **where)


def passes(settings: CurvatureSettings, held_out: int, snapshots: int) -> int:
    """Return the cost of the Hessian-vector products of all layers on both losses, and of the attack."""
    each = 2 * index_passes(settings.vectors + settings.steps) + attack_passes(settings.attack)
    return (settings.train_examples + settings.test_examples) * each


def index_passes(vectors: int) -> int:
    """Return the passes of `vectors` Hessian-vector products with each layer's block, two per product."""
    return 2 * USUAL * vectors


MEASURE = Measure("curvature", CurvatureSettings, curvature, METRICS, passes, ("last",), by_default=())
