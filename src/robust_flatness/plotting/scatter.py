"""Scatter plots of variants: points by family, line with band, coefficients in the title."""

import textwrap
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pandas as pd
import seaborn
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robust_flatness.analysis.correlation import correlate
from robust_flatness.analysis.resampling import Estimate
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
RANKS = "compare rank and sign, not values"
HOLLOW = "Hollow with a name: networks of others, in no coefficient."


def points(
    axes: Axes, frame: pd.DataFrame, x: str, y: str, hollow: bool = False, size: float = MARKER_AREA
) -> None:
    """Draw a point per variant in its family's look, with bars of one standard deviation over seeds."""
    families = frame["family"].where(frame["family"].isin([*looks.every()]), schema.OTHER)
    for name, group in frame.groupby(families, sort=False):
        look, baseline = looks.family(name), name == "at"
        axes.scatter(
            group[x], group[y], s=size * (3 if baseline else 1), marker=look.marker, label=look.label,
            facecolors="none" if hollow else look.color, edgecolors=look.color if hollow else "white",
            linewidths=0.8 if hollow else 0.4, zorder=4 if baseline else 3,
        )  # fmt: skip
        columns = {"xerr": f"{x}_seed_sd", "yerr": f"{y}_seed_sd"}
        bars = {axis: group[column] for axis, column in columns.items() if column in group}
        if bars:
            axes.errorbar(group[x], group[y], **bars, fmt="none", ecolor=look.color, elinewidth=0.5, zorder=2)


def trend(axes: Axes, frame: pd.DataFrame, x: str, y: str) -> float | None:
    """Draw the least-squares line with its 95 % bootstrap band, resampling variants. Returns the slope, or
    None with fewer than three points or constant x."""
    rows = frame[[x, y]].dropna()
    if len(rows) < 3 or rows[x].nunique() < 2:
        return None
    look = {"color": style.GREY, "line_kws": {"linewidth": 0.9, "zorder": 1.5}}
    seaborn.regplot(rows, x=x, y=y, scatter=False, n_boot=999, seed=0, ax=axes, **look)
    return float(np.polyfit(rows[x], rows[y], 1)[0])


def correlations(frame: pd.DataFrame, x: str, y: str) -> tuple[Estimate, list[str]]:
    """Return Pearson's coefficient (r); and r, Spearman's ρ, where they are defined, and n as texts."""
    found = {symbol: correlate(frame, x, y, kind) for symbol, kind in (("r", "pearson"), ("ρ", "spearman"))}
    words = []
    for symbol, value in found.items():
        low, high = value.interval
        interval = f" [{low:.2f}, {high:.2f}]" if np.isfinite(low) else ""
        words += [f"{symbol} = {value.value:.2f}{interval}"] if np.isfinite(value.value) else []
    return found["r"], [*words, f"n = {len(frame)}"]


def fit(axes: Axes, frame: pd.DataFrame, x: str, y: str) -> list[style.Label]:
    """Set the limits by points and bars; draw outliers as triangles at the edge and return their labels."""
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
            labels.append(style.Label(*place, f"{looks.name(row)}: {values}"))
    return labels


def name_axes(axes: Axes, x: str, y: str) -> None:
    """Name the axes in words, with the direction that is flat or robust."""
    width = 96 // axes.get_gridspec().ncols - 4
    for name, put in ((x, axes.set_xlabel), (y, axes.set_ylabel)):
        words, direction = schema.describe(name), schema.direction(name)
        words = textwrap.fill(words[0].upper() + words[1:], width)
        put(f"{words}\n({direction})" if direction else words)


def panel(
    axes: Axes, layer: Layer, x: str, y: str, title: str = "", headline: bool = False, line: bool = True
) -> list[style.Label]:
    """Draw a correlation plot: variants that count, with a `line` where the interval of r excludes 0; hollow
    external networks; grey crosses for variants that have not learnt. Returns labels: of an experiment's
    external networks, points beyond the limits and, for a `headline` (which has the printed networks of
    RobustBench, too), a variant of each family."""
    counted, others = layer.counted.dropna(subset=[x, y]), layer.hollow(headline)
    others = others.dropna(subset=[x, y]) if {x, y} <= {*others} else others.iloc[:0]
    pearson, words = correlations(counted, x, y)
    if line and np.prod(np.sign(pearson.interval)) > 0:
        trend(axes, counted, x, y)
    points(axes, counted, x, y, layer.beside)
    points(axes, others, x, y, hollow=True)
    beyond = fit(axes, pd.concat([counted, others]), x, y)
    apart = layer.variants.loc[~layer.variants["learnt"], [x, y]].dropna()
    places = apart[x].clip(*axes.get_xlim()), apart[y].clip(*axes.get_ylim())
    axes.scatter(*places, s=MARKER_AREA, marker="x", color=style.GREY, clip_on=False, zorder=3)
    name_axes(axes, x, y)
    lines = words if axes.get_gridspec().ncols > 2 else [", ".join(words)]
    axes.set_title("\n".join(filter(None, [title, *lines])))

    def labels(frame: pd.DataFrame, required: bool = False) -> list[style.Label]:
        inside = frame[frame[x].between(*axes.get_xlim()) & frame[y].between(*axes.get_ylim())]
        return [style.Label(row[x], row[y], looks.name(row), required) for row in inside.to_dict("records")]

    named = counted[headline & (counted["variant"].isin(looks.named()) | (len(counted) <= FEW))]
    return [*([] if layer.printed else labels(others, True)), *beyond, *labels(named)]


def families(axes: Sequence[Axes]) -> dict[str, tuple[Artist, ...]]:
    """Return the legend entries of the families drawn: one for each colour, which stands for a kind of change
    to the training, with its markers in the order of the names."""
    drawn, groups = style.entries(axes), {}
    for look in looks.every().values():
        if look.label in drawn:
            group = look.label if look.color == style.BLACK else look.color
            groups.setdefault(group, []).append(look.label)
    return {", ".join(labels): tuple(drawn[label] for label in labels) for labels in groups.values()}


def figure(
    draw: Sequence[Callable[[Axes], list[style.Label]]], *notes: str, height: float = 3.0, title: str = ""
) -> Figure:
    """Return a figure with a panel for each function of `draw`, which returns its labels: up to three in a
    row, four in two rows; above them a `title`, below them the families drawn and notes."""
    columns = 2 if len(draw) == 4 else min(len(draw), 3)
    drawn, axes = style.panels(len(draw), columns, height=height, room=1.1)
    drawn.suptitle(title, fontsize=8, x=0.01, ha="left")
    labels = [function(place) for function, place in zip(draw, axes, strict=True)]
    style.legend(drawn, families(axes), *notes)
    for place, found in zip(axes, labels, strict=True):
        style.place_labels(place, found)
    return drawn


def notes(notebook: Notebook) -> str:
    """Return a correlation plot's notes on intervals, printed numbers, bars and models apart."""
    sentences = [INTERVALS, notebook.beside("Hollow: published, CIFAR-10", RANKS)]
    for layer in notebook.layers:
        sentences += [layer.spread("Bars"), layer.apart("grey crosses")]
    return " ".join(filter(None, [*sentences, HOLLOW * (len(notebook.ours.hollow()) > 0)]))


def show(
    notebook: Notebook, *pairs: tuple[str, str], height: float = 3.0, headline: bool = False
) -> Notebook:
    """Draw and write correlation plots, a panel per pair (x, y): of ours, then of the printed numbers. The
    note names pairs that a layer lacks; without any of ours, a line says so. For `headline` see `panel`."""
    cells, lacking = [], []
    for layer, missing in zip(notebook.layers, ("Not measured", "Not printed"), strict=False):
        shown = pd.concat([layer.counted, layer.hollow(headline)])
        look = {"title": layer.name if notebook.printed else "", "headline": headline}
        there = [pair for pair in pairs if aggregate.has(shown, *pair)]
        cells.append([partial(panel, layer=layer, x=x, y=y, **look) for x, y in there])
        absent = [schema.describe(x) for x, y in pairs if (x, y) not in there]
        lacking += [f"{missing}: {', '.join(absent)}."] if absent else []
    names = dict.fromkeys(name for pair in pairs for name in pair)
    missing = "" if cells[0] else notebook.missing(*names)
    cells = [cell for of_layer in cells for cell in of_layer]
    return notebook.show(lambda: figure(cells, notes(notebook), *lacking, height=height), missing)
