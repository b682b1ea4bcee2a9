"""Flatness in RLoss with one layer perturbed at a time: the block `layers`."""

from collections.abc import Iterator
from dataclasses import replace

from robust_flatness.config.measures import AttackSpec, MeasureSettings, TestExamples, attack_defaults
from robust_flatness.config.values import Precision
from robust_flatness.measures import flatness
from robust_flatness.measures.base import Examples, Measure, Metric, Network, Record
from robust_flatness.runtime.progress import track

#: Number of layers assumed for the cost, that of a ResNet-18.
USUAL = 22
METRICS = {"numbers": Metric("numbers", "number of weights in the layer", "setting")} | {
    name: replace(flatness.METRICS[name], radius="", main="", compared=False, count="layers_test_examples")
    for name in flatness.CASES
}


class LayersSettings(MeasureSettings):
    """Flatness in RLoss layer by layer, on test examples, at the first radius of each case."""

    attack: AttackSpec = attack_defaults(steps=20, restarts=10)
    average: flatness.AverageSettings = flatness.AverageSettings(xi=flatness.AVERAGE.xi[:1])
    worst: flatness.WorstSettings | None = None
    """None: average case only."""
    test_examples: TestExamples
    precision: Precision = "float32"

    def passes(self, held_out: int) -> int:
        each = self.average.passes(self.attack) + (self.worst.passes() if self.worst else 0)
        return USUAL * self.test_examples * each


def layers(net: Network, data: Examples, settings: LayersSettings) -> Iterator[Record]:
    r"""Yield the flatness of each layer l, in the neighbourhood that perturbs this layer alone,

    .. math:: \|\nu^{(l)}\|_2 \le \xi\,\|w^{(l)}\|_2, \qquad \nu^{(m)} = 0 \text{ for } m \ne l.

    A layer is one parameter tensor: weight and bias count separately. With equal seeds :math:`\nu^{(l)}` is
    the same as when all layers are perturbed.
    """
    for name, weight in track(net.weights().items(), "layer"):
        yield Record("numbers", weight.numel(), coordinate=name)
        for metric, case in flatness.CASES.items():
            if part := getattr(settings, case):
                where = ("test", "rloss", part.xi[0], name)
                yield from flatness.case_records(net, data, settings, metric, *where)


MEASURE = Measure("layers", LayersSettings, layers, METRICS, by_default=())
