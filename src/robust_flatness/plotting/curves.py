"""Figures of curves over epochs, and the order of variants that differ in a hyper-parameter."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robust_flatness.plotting import looks, style
from robust_flatness.plotting.layer import Layer
from robust_flatness.plotting.notebook import Notebook
from robust_flatness.tables import aggregate

EPOCH = "normalised_epoch"
#: Initial fraction of a training that axis limits ignore: its losses may be a thousand times the final ones.
EARLY = 0.2


class Curve(NamedTuple):
    """A curve of a panel: a column of a variant's table, its colour, its label in the legend."""

    column: str
    color: str
    label: str = ""
    variant: str = "at"
    width: float = 1.3


#: Test RLoss of the baseline behind other curves.
BASELINE = Curve("test_rloss", style.LIGHT, "AT (baseline)", width=2.5)


def of(frame: pd.DataFrame, variant: str, *columns: str) -> pd.DataFrame:
    """Return a variant's rows in order of epochs, those with a value in all of `columns`."""
    rows = frame[frame["variant"] == variant].sort_values(EPOCH)
    return rows.dropna(subset=[*columns]) if {*columns} <= {*rows} else rows.iloc[:0]


def training(layer: Layer, variant: str) -> pd.DataFrame:
    """Return a variant's training curves; without test RLoss its snapshots, their columns without `_pgd`."""
    rows = of(layer.history, variant)
    if aggregate.has(rows, "test_rloss"):
        return rows
    return of(layer.series, variant).rename(columns=lambda name: name.replace("_pgd", ""))


def figure(
    notebook: Notebook, panels: Mapping[str, Sequence[Curve]], *notes: str, layers: Sequence[Layer] = (),
    rows: Callable[[Layer, str], pd.DataFrame] = training, together: bool = False, mark: bool = True,
    y: str = "lower is more robust", **options,
) -> Figure:  # fmt: skip
    """Draw a panel per title of `panels` with its curves of each layer (by default of the notebook): columns
    of the table that `rows` returns for a layer and a variant. With `together`, panels share the vertical
    axis; with `mark`, each shows `mark_epochs` of its last variant. `options` go to `style.panels`."""
    layers = layers or notebook.layers
    options |= {"sharex": True, "sharey": together}
    drawn, axes = style.panels(len(panels), x="Epoch (share of training)", y=y, **options)
    for place, (title, lines) in zip(axes, panels.items(), strict=True):
        for curve in lines:
            for layer in layers:
                draw(place, layer, rows(layer, curve.variant), curve)
        if mark:
            mark_epochs(place, notebook.ours, lines[-1].variant)
        place.set_title(title)
    entries = style.entries(axes)
    if notebook.printed in layers:
        entries["dashed: published, CIFAR-10"] = Line2D([], [], color=style.GREY, **style.PUBLISHED)
        notes = notebook.beside("", "Compare trends with the published curves, not values"), *notes
    style.legend(drawn, entries, *notes, notebook.ours.spread("Bands"), clip(axes, together))
    return drawn


def draw(axes: Axes, layer: Layer, rows: pd.DataFrame, curve: Curve) -> None:
    """Draw one curve, if it has values, with a band of one standard deviation over seeds; curves of printed
    numbers beside ours are dashed and have no label."""
    column, color, label, _, width = curve
    if not aggregate.has(rows, column):
        return
    look = style.PUBLISHED if layer.beside else {"label": label or None, "linewidth": width}
    rows = rows.dropna(subset=[column])
    axes.plot(rows[EPOCH], rows[column], color=color, **look)
    spread = f"{column}_seed_sd"
    if aggregate.has(rows, spread):
        low, high = rows[column] - rows[spread], rows[column] + rows[spread]
        axes.fill_between(rows[EPOCH], low, high, color=color, alpha=0.15, linewidth=0)


def mark_epochs(axes: Axes, layer: Layer, variant: str) -> None:
    """Mark the epochs at which a variant's learning rate drops and that of its early-stopped checkpoint."""
    rows = of(layer.history, variant, "learning_rate")
    look = {"color": "#909090", "linewidth": 0.7, "linestyle": ":", "zorder": 0}
    for share in rows[EPOCH][rows["learning_rate"].diff().shift(-1) < 0]:
        axes.axvline(share, label="drop of the learning rate", **look)
    models = layer.evidence.complete.seeds.models
    best = models[(models["variant"] == variant) & (models["checkpoint"] == "best")]
    if aggregate.has(best, "epoch", "epochs"):
        share = (best["epoch"].mean() + 1) / best["epochs"].mean()
        look = {"color": style.GREEN, "linewidth": 1, "linestyle": "-.", "zorder": 0}
        axes.axvline(share, label="early-stopped checkpoint", **look)


def clip(panels: Sequence[Axes], together: bool = False) -> str:
    """Set the limits of the vertical axes by the curves after their first fifth, without those whose largest
    value is an outlier; return a sentence about what is cut off, "" if nothing is."""
    beyond = []
    for group in [[*panels]] if together else [[axes] for axes in panels]:
        curves = [np.asarray(line.get_data(), float) for axes in group for line in axes.lines]
        curves = [(x, y) for x, y in curves if len(x) > 2]
        late = [y[(x > EARLY * x[-1]) & np.isfinite(y)] for x, y in curves]
        low, high = (np.array([end(y) for y in late if len(y)]) for end in (np.min, np.max))
        if not len(low):
            continue
        low, high = low.min(), high[style.near(high)].max()
        margin = 0.06 * ((high - low) or abs(high) or 1.0)
        group[0].set_ylim(low - margin, high + margin)
        highest = max(np.nanmax(y) for _, y in curves)
        if highest > high + margin:
            beyond.append(f"{'values' if together else group[0].get_title('left')} up to {highest:.3g}")
    return f"Cut off: {', '.join(beyond)}." if beyond else ""


def by_hyperparameter(frame: pd.DataFrame, least: int = 1) -> dict[str, list[str]]:
    """Return the variants of each method in the order of its hyper-parameter, by the title of a panel: the
    method and the values used in training. Methods with fewer than `least` variants are left out."""
    methods = {look.parameter: [] for look in looks.every().values() if look.parameter}
    for row in frame.to_dict("records"):
        if method := looks.family(row["family"]).parameter:
            number = looks.NUMBER.search(row["variant"])
            name = number[1] if number else looks.variant(row["variant"], row["label"])
            place = float(number[1]) if number else np.inf
            methods[method].append((place, looks.applied(row) or name, row["variant"]))
    found = {}
    for method, variants in methods.items():
        variants.sort(key=lambda item: item[0])
        if len(variants) >= least:
            found[f"{method}\n{', '.join(value for _, value, _ in variants)}"] = [v for *_, v in variants]
    return found
