import csv
from pathlib import Path

from robust_flatness.measures.base import LOSSES, Metric
from robust_flatness.measures.registry import MEASURES

FASHION = Path(__file__).parents[2] / "docs/results/fashion/models.csv"
#: Columns that hold neither a measure nor its settings.
OTHERS = {"variant", "seed", "checkpoint", "family", "label", "derived", "epochs", "epoch"} | {
    "classes", "same_as", "autoattack", "not_finite",
}  # fmt: skip


def columns(metric: Metric, radii: tuple[float, ...]) -> set[str]:
    """All columns of a metric, with those of its spread."""
    found = {metric.count.format(split=split) for split in metric.splits}
    for split in metric.splits:
        for loss in LOSSES if metric.by_loss else [""]:
            for radius in (None, *radii) if metric.radius else [None]:
                name = metric.name(split, loss, radius)
                found |= {name, f"{name}_se", f"{name}_std"}
    return found


def test_metrics_name_the_columns_of_published_results():
    with open(FASHION, encoding="utf-8") as file:
        given = {name for name in next(csv.reader(file)) if not name.startswith(("setting_", "run_"))}
    radii = (0.25, 0.75, 1.0, 2.0, 0.00075, 0.001, 0.005)
    metrics = [metric for measure in MEASURES.values() for metric in measure.metrics.values()]
    named = set().union(*(columns(metric, radii) for metric in metrics if metric.column))
    assert given - OTHERS - named == set()
