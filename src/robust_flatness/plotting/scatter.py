"""Scatter plots of variants: points by family, line with band, coefficients in the title."""

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robust_flatness.analysis.correlation import coefficient, correlate, weighted_line
from robust_flatness.analysis.resampling import LEVEL, Estimate, resampled_counts
from robust_flatness.plotting import looks, style
from robust_flatness.plotting.layer import Layer
from robust_flatness.plotting.notebook import Notebook
from robust_flatness.tables import aggregate, schema

MARKER_AREA = 22
#: Number of variants up to which all are named.
FEW = 12
INTERVALS = (
    "r: Pearson, ρ: Spearman; in brackets the 95 % bootstrap confidence interval, resampling variants or "
    "families (the wider). Line: least squares with 95 % band, where the interval of r excludes 0."
)
HOLLOW = "Hollow with a name: networks of others, in no coefficient."
Label = tuple[float, float, str]


def points(
    axes: Axes, frame: pd.DataFrame, x: str, y: str, hollow: bool = False, size: float = MARKER_AREA
) -> None:
    """Draw a point per variant in its family's colour and marker, with bars of one standard deviation over
    seeds where there are several."""
    for name, group in frame.groupby("family", sort=False):
        look, baseline = looks.family(name), name == "at"
        axes.scatter(
            group[x], group[y], s=size * (3 if baseline else 1), marker=look.marker,
            facecolors="none" if hollow else look.color, edgecolors=look.color if hollow else "white",
            linewidths=0.8 if hollow else 0.4, zorder=4 if baseline else 3,
        )  # fmt: skip
        columns = {"xerr": f"{x}_seed_sd", "yerr": f"{y}_seed_sd"}
        bars = {axis: group[column] for axis, column in columns.items() if column in group}
        if bars:
            axes.errorbar(group[x], group[y], **bars, fmt="none", ecolor=look.color, elinewidth=0.5, zorder=2)


def trend(axes: Axes, frame: pd.DataFrame, x: str, y: str) -> float | None:
    """Draw the least-squares line with its 95 % band from percentiles of lines through resampled variants;
    returns its slope, None with fewer than three points or without variation in x."""
    x, y = frame[[x, y]].dropna().to_numpy(float).T
    if len(x) < 3 or np.ptp(x) == 0:
        return None
    grid = np.linspace(x.min(), x.max(), 50)
    (intercept,), (slope,) = weighted_line(x, y, np.ones((1, len(x))))
    intercepts, slopes = weighted_line(x, y, resampled_counts(len(x), 999))
    lines = (intercepts[:, None] + slopes[:, None] * grid)[np.isfinite(slopes)]
    low, high = np.quantile(lines, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    axes.plot(grid, intercept + slope * grid, color=style.GREY, linewidth=0.9, zorder=1.5)
    axes.fill_between(grid, low, high, color=style.GREY, alpha=0.18, linewidth=0, zorder=1)
    return float(slope)


def correlations(frame: pd.DataFrame, x: str, y: str) -> tuple[Estimate, list[str]]:
    """Return Pearson's coefficient (r); and r, Spearman's ρ, where they are defined, and n as texts."""
    found = {symbol: correlate(frame, x, y, kind) for symbol, kind in (("r", "pearson"), ("ρ", "spearman"))}
    words = []
    for symbol, value in found.items():
        low, high = value.interval
        interval = f" [{low:.2f}, {high:.2f}]" if np.isfinite(low) else ""
        words += [f"{symbol} = {value.value:.2f}{interval}"] if np.isfinite(value.value) else []
    return found["r"], [*words, f"n = {len(frame)}"]


def fit(axes: Axes, frame: pd.DataFrame, x: str, y: str) -> list[Label]:
    """Set the limits by the points and their bars, and draw outliers as triangles at the edge; returns the
    labels of these, name and value."""
    if frame.empty:
        return []
    for name, put in ((x, axes.set_xlim), (y, axes.set_ylim)):
        rows = frame[style.near(frame[name])]
        bars = rows.reindex(columns=[f"{name}_seed_sd"]).iloc[:, 0].fillna(0)
        low, high = (rows[name] - bars).min(), (rows[name] + bars).max()
        margin = 0.07 * ((high - low) or 1.0)
        put(low - margin, high + margin)
    labels = []
    for row in frame.dropna(subset=[x, y]).to_dict("records"):
        place = float(np.clip(row[x], *axes.get_xlim())), float(np.clip(row[y], *axes.get_ylim()))
        sides = ((x, place[0], "<>"), (y, place[1], "v^"))
        beyond = [(row[name], marks[row[name] > at]) for name, at, marks in sides if row[name] != at]
        if beyond:
            look = {"s": 20, "marker": beyond[0][1], "color": looks.family(row["family"]).color}
            axes.scatter(*place, clip_on=False, zorder=5, **look)
            values = ", ".join(f"{value:.3g}" for value, _ in beyond)
            labels.append((*place, f"{looks.name(row)}: {values}"))
    return labels


def name_axes(axes: Axes, x: str, y: str, width: int = 60) -> None:
    """Name the axes in words, with the direction that is flat or robust, in lines of `width` characters."""
    for name, put in ((x, axes.set_xlabel), (y, axes.set_ylabel)):
        words, direction = schema.describe(name), schema.direction(name)
        words = textwrap.fill(words[0].upper() + words[1:], width)
        put(f"{words}\n({direction})" if direction else words)


def cloud(
    axes: Axes, layer: Layer, others: pd.DataFrame, x: str, y: str, size: float = MARKER_AREA
) -> list[Label]:
    """Draw all points of a layer, `others` (external networks) hollow, with the limits set by them, and
    variants that have not learnt as grey crosses; returns the labels of points beyond the limits (`fit`)."""
    frame = layer.counted.dropna(subset=[x, y])
    points(axes, frame, x, y, layer.beside, size)
    if aggregate.has(others, x, y):
        points(axes, others, x, y, hollow=True, size=size)
        frame = pd.concat([frame, others])
    labels = fit(axes, frame, x, y)
    apart = layer.unlearnt[[x, y]].dropna()
    if len(apart):
        places = apart[x].clip(*axes.get_xlim()), apart[y].clip(*axes.get_ylim())
        axes.scatter(*places, s=MARKER_AREA, marker="x", color=style.GREY, clip_on=False, zorder=3)
    return labels


def label_points(
    axes: Axes, layer: Layer, x: str, y: str, beyond: Sequence[Label], variants: bool = False
) -> None:
    """Name an experiment's external networks and, where there is room, points `beyond` the axes and (if
    `variants`) one variant of each family, or all of few."""

    def labels(frame: pd.DataFrame) -> list[Label]:
        if not {x, y} <= {*frame}:
            return []
        inside = frame[frame[x].between(*axes.get_xlim()) & frame[y].between(*axes.get_ylim())]
        return [(row[x], row[y], looks.name(row)) for row in inside.to_dict("records")]

    rows = layer.counted if variants else layer.counted.iloc[:0]
    style.place_labels(axes, labels(layer.hollow()), always=True)
    named = rows["variant"].isin(looks.named()) | (len(rows) <= FEW)
    style.place_labels(axes, [*beyond, *labels(rows[named])])


def notes(notebook: Notebook, *columns: str) -> str:
    """Return a correlation plot's notes on intervals, printed numbers (with which the ranks of `columns` are
    compared), bars and models apart."""
    sentences = [INTERVALS, comparison_note(notebook, *columns)]
    for layer in notebook.layers:
        sentences += [layer.spread("Bars"), layer.apart]
    return " ".join(filter(None, [*sentences, HOLLOW * (len(notebook.ours.hollow()) > 0)]))


def comparison_note(notebook: Notebook, *columns: str) -> str:
    """Return how ours compare with the published plot: by value on the same data, else by rank and sign."""
    if notebook.printed is None:
        return ""
    note = notebook.beside("Hollow: published, CIFAR-10", "compare rank and sign, not values")
    theirs = notebook.printed.variants
    joined = notebook.ours.counted.merge(theirs, on="variant", suffixes=("", "_published"))
    ranks = []
    for name in () if notebook.same_data else filter(schema.is_measure, columns):
        if aggregate.has(joined, name, f"{name}_published", rows=4):
            rho = coefficient(joined[name], joined[f"{name}_published"], "spearman")
            ranks.append(f"{schema.describe(name)} ρ = {rho:.2f}")
    return note + f" Rank correlation of ours with the printed numbers: {'; '.join(ranks)}." * bool(ranks)


def panel(
    axes: Axes, layer: Layer, others: pd.DataFrame, x: str, y: str, title: str, columns: int = 1
) -> list[Label]:
    """Draw one correlation plot of a figure with `columns`; returns the labels of points beyond its axes."""
    frame = layer.counted.dropna(subset=[x, y])
    pearson, words = correlations(frame, x, y)
    if np.prod(np.sign(pearson.interval)) > 0:
        trend(axes, frame, x, y)
    labels = cloud(axes, layer, others, x, y)
    name_axes(axes, x, y, 96 // columns - 4)
    lines = words if columns > 2 else [", ".join(words)]
    axes.set_title("\n".join(filter(None, [title, *lines])))
    return labels


def correlation_figure(
    notebook: Notebook, pairs: Sequence[tuple[str, str]], height: float = 3.0, headline: bool = False
) -> Figure:
    """Draw correlation plots, a panel per pair (x, y): of ours, and beside or below them those of the printed
    numbers. `headline` names a variant of each family and adds the printed networks of RobustBench. A pair
    that a layer lacks has no panel and is named in the note."""
    cells, lacking, families, hollow = [], [], [], []
    for layer, missing in zip(notebook.layers, ("Not measured", "Not printed"), strict=False):
        others = layer.hollow(headline)
        shown = pd.concat([layer.counted, others])
        cells += [(layer, others, *pair) for pair in pairs if aggregate.has(shown, *pair)]
        absent = [schema.describe(x) for x, y in pairs if not aggregate.has(shown, x, y)]
        lacking += [f"{missing}: {', '.join(absent)}."] if absent else []
        families += [*layer.variants["family"]]
        hollow += [*others["family"]]
    columns = min(len(cells), 2 if len(pairs) == 1 else len(pairs))
    figure, axes = style.panels(len(cells), columns, height=height, room=1.1)
    labels = [
        panel(place, layer, others, x, y, layer.title() if notebook.printed else "", columns)
        for place, (layer, others, x, y) in zip(axes, cells, strict=True)
    ]
    compared = dict.fromkeys(name for pair in pairs for name in pair)
    style.legend(figure, style.handles(families, hollow), notes(notebook, *compared), *lacking)
    for place, (layer, _, x, y), beyond in zip(axes, cells, labels, strict=True):
        label_points(place, layer, x, y, beyond, headline)
    return figure


def show(notebook: Notebook, *pairs: tuple[str, str], **options) -> Notebook:
    """Draw and write a `correlation_figure`; a line that says what is missing where no pair can be drawn."""
    shown = pd.concat([notebook.ours.counted, notebook.ours.hollow()])
    drawn = any(aggregate.has(shown, *pair) for pair in pairs)
    missing = "" if drawn else notebook.missing(*dict.fromkeys(name for pair in pairs for name in pair))
    return notebook.show(lambda: correlation_figure(notebook, pairs, **options), missing)
