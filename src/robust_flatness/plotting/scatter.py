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
from robust_flatness.plotting.notebook import Notebook, Saved
from robust_flatness.tables import aggregate, schema

MARKER_AREA = 22
#: With at most so many variants, all are named.
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
        look, color, baseline = looks.family(name), looks.color(name), name == "at"
        axes.scatter(
            group[x], group[y], s=size * (3 if baseline else 1), marker=look.marker,
            facecolors="none" if hollow else color, edgecolors=color if hollow else "white",
            linewidths=0.8 if hollow else 0.4, zorder=4 if baseline else 3,
        )  # fmt: skip
        columns = {"xerr": f"{x}_seed_sd", "yerr": f"{y}_seed_sd"}
        spread = {axis: group[column] for axis, column in columns.items() if column in group}
        if spread:
            axes.errorbar(group[x], group[y], **spread, fmt="none", ecolor=color, elinewidth=0.5, zorder=2)


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


def correlations(frame: pd.DataFrame, x: str, y: str) -> dict[str, Estimate]:
    """Return Pearson's (r) and Spearman's coefficient (ρ), those that are defined."""
    found = {
        symbol: correlate(frame, x, y, kind) for symbol, kind in {"r": "pearson", "ρ": "spearman"}.items()
    }
    return {symbol: value for symbol, value in found.items() if np.isfinite(value.value)}


def in_words(found: dict[str, Estimate], n: int) -> list[str]:
    """Return coefficients with intervals, and n, as texts."""
    words = []
    for symbol, value in found.items():
        low, high = value.interval
        interval = f" [{low:.2f}, {high:.2f}]" if np.isfinite(low) else ""
        words.append(f"{symbol} = {value.value:.2f}{interval}")
    return [*words, f"n = {n}"]


def fit(axes: Axes, frame: pd.DataFrame, x: str, y: str) -> list[Label]:
    """Set the limits by the points and their bars, and draw points far out as triangles at the edge; returns
    their labels, name and value."""
    if frame.empty:
        return []
    for name, setter in ((x, axes.set_xlim), (y, axes.set_ylim)):
        rows = frame[style.near(frame[name])]
        bars = rows.get(f"{name}_seed_sd", pd.Series(0.0, index=rows.index)).fillna(0)
        low, high = (rows[name] - bars).min(), (rows[name] + bars).max()
        margin = 0.07 * ((high - low) or 1.0)
        setter(low - margin, high + margin)
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    labels = []
    for row in frame.dropna(subset=[x, y]).to_dict("records"):
        place = float(np.clip(row[x], left, right)), float(np.clip(row[y], bottom, top))
        beyond = [row[name] for name, at in zip((x, y), place, strict=True) if row[name] != at]
        if beyond:
            across = (">" if row[x] > right else "<") if place[0] != row[x] else ""
            marker = across or ("^" if row[y] > top else "v")
            color = looks.color(row["family"])
            axes.scatter(*place, s=20, marker=marker, color=color, clip_on=False, zorder=5)
            labels.append((*place, f"{looks.name(row)}: {', '.join(f'{value:.3g}' for value in beyond)}"))
    return labels


def apart(axes: Axes, frame: pd.DataFrame, x: str, y: str) -> None:
    """Draw variants that have not learnt as grey crosses, those outside the limits at the edge."""
    frame = frame[[x, y]].dropna()
    if len(frame):
        places = [frame[name].clip(*limits) for name, limits in ((x, axes.get_xlim()), (y, axes.get_ylim()))]
        axes.scatter(*places, s=MARKER_AREA, marker="x", color=style.GREY, clip_on=False, zorder=3)


def name_axes(axes: Axes, x: str, y: str, width: int = 60) -> None:
    """Name the axes in words, with the direction that is flat or robust, in lines of `width` characters."""
    for name, setter in ((x, axes.set_xlabel), (y, axes.set_ylabel)):
        words, direction = schema.describe(name), schema.direction(name)
        words = textwrap.fill(words[0].upper() + words[1:], width)
        setter(f"{words}\n({direction})" if direction else words)


def cloud(
    axes: Axes, layer: Layer, others: pd.DataFrame, x: str, y: str, size: float = MARKER_AREA
) -> list[Label]:
    """Draw all points of a layer, `others` (networks of others) hollow, with the limits set by them; returns
    the labels of those beyond (`fit`)."""
    frame = layer.counted.dropna(subset=[x, y])
    points(axes, frame, x, y, layer.beside, size)
    if aggregate.has(others, x, y):
        points(axes, others, x, y, hollow=True, size=size)
        frame = pd.concat([frame, others])
    labels = fit(axes, frame, x, y)
    apart(axes, layer.unlearnt, x, y)
    return labels


def others_of(notebook: Notebook, layer: Layer, robustbench: bool = False) -> pd.DataFrame:
    """Return the networks of others in a layer's panel; the printed ones if `robustbench`."""
    return layer.others if robustbench or _is_experiment(notebook, layer) else layer.others.iloc[:0]


def _is_experiment(notebook: Notebook, layer: Layer) -> bool:
    return layer is notebook.ours and notebook.printed is not None


def label_points(
    axes: Axes, notebook: Notebook, layer: Layer, x: str, y: str, beyond: Sequence[Label] = (),
    variants: bool = False,
) -> None:  # fmt: skip
    """Name networks of others and, where there is room, points `beyond` the axes and (if `variants`) one
    variant of each family that asks for it."""
    others, rows = others_of(notebook, layer), layer.counted
    asked = rows[rows["variant"].isin(looks.named())] if len(rows) > FEW else rows

    def labels(frame: pd.DataFrame) -> list[Label]:
        if not {x, y} <= {*frame}:
            return []
        inside = frame[frame[x].between(*axes.get_xlim()) & frame[y].between(*axes.get_ylim())]
        return [(row[x], row[y], looks.name(row)) for row in inside.to_dict("records")]

    style.place_labels(axes, labels(others), always=True)
    style.place_labels(axes, [*beyond, *(labels(asked) if variants else ())])


def notes(notebook: Notebook, *columns: str) -> str:
    """Return a correlation plot's notes on intervals, printed numbers (with which the ranks of `columns` are
    compared), bars and models apart."""
    sentences = [INTERVALS, comparison_note(notebook, *columns)]
    for layer in notebook.layers:
        sentences += [layer.spread("Bars"), layer.apart]
    some = _is_experiment(notebook, notebook.ours) and len(notebook.ours.others)
    return " ".join(filter(None, [*sentences, HOLLOW if some else ""]))


def comparison_note(notebook: Notebook, *columns: str) -> str:
    """Return how ours compare with the published plot: by value on the same data, else by rank and sign."""
    if notebook.printed is None:
        return ""
    note = notebook.beside("Hollow: published, CIFAR-10", "compare rank and sign, not values")
    joined = aggregate.join_published(notebook.ours.counted, notebook.printed.variants)
    ranks = []
    for name in () if notebook.same_data else columns:
        theirs = f"{name}_published"
        if aggregate.has(joined, name, theirs, rows=4):
            rho = coefficient(joined[name], joined[theirs], "spearman")
            ranks.append(f"{schema.describe(name)} ρ = {rho:.2f}")
    return note + (f" Rank correlation of ours with the printed numbers: {'; '.join(ranks)}." * bool(ranks))


def panel(
    axes: Axes, layer: Layer, others: pd.DataFrame, x: str, y: str, title: str, columns: int = 1
) -> list[Label]:
    """Draw one correlation plot of a figure with `columns`; returns the labels of points beyond its axes."""
    frame = layer.counted.dropna(subset=[x, y])
    found = correlations(frame, x, y)
    if "r" in found and np.prod(np.sign(found["r"].interval)) > 0:
        trend(axes, frame, x, y)
    labels = cloud(axes, layer, others, x, y)
    name_axes(axes, x, y, 96 // columns - 4)
    words = in_words(found, len(frame))
    lines = words if columns > 2 else [", ".join(words)]
    axes.set_title("\n".join(filter(None, [title, *lines])))
    return labels


def correlation_figure(
    notebook: Notebook, pairs: Sequence[tuple[str, str]], labelled: bool = False, height: float = 3.0,
    robustbench: bool = False,
) -> Figure:  # fmt: skip
    """Draw correlation plots, a panel per pair (x, y): of ours, and beside or below them the printed ones.
    `labelled` names a variant of each family, `robustbench` adds the printed networks of RobustBench. A pair
    that a layer lacks has no panel and is named in the note."""
    cells, lacking, families, hollow = [], [], [], []
    for layer, missing in zip(notebook.layers, ("Not measured", "Not printed"), strict=False):
        others = others_of(notebook, layer, robustbench)
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
    columns_compared = dict.fromkeys(name for pair in pairs for name in pair)
    text = " ".join([notes(notebook, *columns_compared), *lacking])
    style.legend(figure, style.handles(families, hollow), text)
    for place, (layer, _, x, y), beyond in zip(axes, cells, labels, strict=True):
        label_points(place, notebook, layer, x, y, beyond, labelled)
    return figure


def show(notebook: Notebook, pairs: Sequence[tuple[str, str]], **options) -> Saved:
    """Draw and write a `correlation_figure`; a line that says what is missing where no pair can be drawn."""
    shown = pd.concat([notebook.ours.counted, others_of(notebook, notebook.ours)])
    drawn = any(aggregate.has(shown, *pair) for pair in pairs)
    missing = "" if drawn else notebook.missing(*dict.fromkeys(name for pair in pairs for name in pair))
    return notebook.show(lambda: correlation_figure(notebook, pairs, **options), missing)
