"""Curvature of the loss layer by layer, and the weight-curvature index: the block `curvature`."""

from collections.abc import Iterator

from robust_flatness.config.measures import SPLITS
from robust_flatness.config.values import Count, Size
from robust_flatness.measures.base import FLATTER, Examples, Measure, Metric, Network, OnBothLosses, Record
from robust_flatness.measures.layers import USUAL

#: Random vectors of a trace, and steps of Lanczos' method.
VECTORS, STEPS = 20, 40
#: Assumed passes of a Hessian-vector product with each layer's block: two for a layer.
PRODUCT = 2 * USUAL
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


class CurvatureSettings(OnBothLosses):
    """Curvature of the loss layer by layer, and the weight-curvature index on training examples."""

    vectors: Count = VECTORS
    """Random vectors of the traces."""
    steps: Size = STEPS
    """Steps of Lanczos' method for the largest eigenvalues; 0: traces and index alone."""

    def passes(self, held_out: int) -> int:
        each = 2 * PRODUCT * (self.vectors + self.steps) + self.attack.passes
        return (self.train_examples + self.test_examples) * each


def curvature(net: Network, data: Examples, settings: CurvatureSettings) -> Iterator[Record]:
    """Yield trace and largest eigenvalue of each layer's Hessian block for both losses, with the layer as
    `coordinate`, and the weight-curvature index on training examples."""
    from robust_flatness.measures.sharpness.curvature import index_of, layer_curvature

    for name, weight in net.weights().items():
        yield Record("norm", weight.norm().item(), coordinate=name)
    for split in settings.splits:
        for objective, where in data.objectives(net, split, settings):
            layers = layer_curvature.of(objective, settings.vectors, settings.steps)
            if split == "train":
                yield Record(INDEX, *index_of(layers), **where)
            for name, layer in layers.items():
                where["coordinate"] = name
                yield Record("trace", *layer.trace, **where)
                if layer.eigenvalue is not None:
                    yield Record("eigenvalue", layer.eigenvalue, **where)


MEASURE = Measure("curvature", CurvatureSettings, curvature, METRICS, by_default=())
