"""Scatter plots of variants: points by family, trend with band, coefficients in the title."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from robust_flatness.analysis.coefficients import coefficient, finite
from robust_flatness.analysis.correlation import correlate
from robust_flatness.analysis.lines import fit_line
from robust_flatness.plotting import looks, style
from robust_flatness.plotting.labels import place_labels
from robust_flatness.plotting.layer import Layer
from robust_flatness.plotting.notebook import Notebook, Saved
from robust_flatness.tables import aggregate, schema

MARKER_AREA = 22
#: A point more than so many interquartile ranges beyond the third quartile does not set an axis.
FENCE = 6
#: The room of a name at an edge, as a share of the axis: a line's height at the sides; else all of it.
LINE, WIDTH = 0.05, 1.0
#: What a triangle at the edge means.
BEYOND = "Triangles: beyond the axis, with the value."
#: So many variants can all be named.
FEW = 12
INTERVALS = (
    "r: Pearson's, ρ: Spearman's correlation. In brackets: where it lies with 95 % certainty, if variants, "
    "or whole families of them, are drawn anew at random (the wider range). Band: the same for the line."
)


def points(
    axes: Axes, frame: pd.DataFrame, x: str, y: str, hollow: bool = False, size: float = MARKER_AREA
) -> None:
    """A point per variant in its family's colour and marker, with bars of one standard deviation over
    seeds where there are several."""
    for name, group in frame.groupby("family", sort=False):
        look, color = looks.family(name), looks.color(name)
        area = size * (3 if name == "at" else 1)
        axes.scatter(
            group[x],
            group[y],
            s=area,
            marker=look.marker,
            facecolors="none" if hollow else color,
            edgecolors=color if hollow else "white",
            linewidths=0.8 if hollow else 0.4,
            zorder=4 if name == "at" else 3,
        )
        spread = {
            axis: group[f"{column}_seed_sd"]
            for axis, column in (("xerr", x), ("yerr", y))
            if f"{column}_seed_sd" in group
        }
        if spread:
            axes.errorbar(group[x], group[y], **spread, fmt="none", ecolor=color, elinewidth=0.5, zorder=2)


def apart(axes: Axes, frame: pd.DataFrame, x: str, y: str) -> None:
    """Variants that have not learnt, as grey crosses; those outside the limits, at the edge."""
    frame = frame[[x, y]].dropna()
    if len(frame):
        places = [frame[name].clip(*limits) for name, limits in ((x, axes.get_xlim()), (y, axes.get_ylim()))]
        axes.scatter(*places, s=MARKER_AREA, marker="x", color=style.GREY, clip_on=False, zorder=3)


def others(axes: Axes, rows: pd.DataFrame, extra: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """Draw networks of others, hollow, beside `rows`; returns all points, for the limits."""
    if not aggregate.has(extra, x, y):
        return rows
    points(axes, extra, x, y, hollow=True)
    return pd.concat([rows, extra])


def others_of(notebook: Notebook, layer: Layer, robustbench: bool = False) -> pd.DataFrame:
    """The networks of others in a layer's panel: the experiment's own, and where asked for the printed
    ones of RobustBench."""
    return layer.others if robustbench or is_own(notebook, layer) else layer.others.iloc[:0]


def others_note(notebook: Notebook) -> str:
    """What hollow points with a name are; "" if there are none."""
    some = is_own(notebook, notebook.ours) and len(notebook.ours.others)
    return " Hollow with a name: networks of others, in no coefficient." if some else ""


def is_own(notebook: Notebook, layer: Layer) -> bool:
    """Whether a layer is an experiment's, not the paper's."""
    return layer is notebook.ours and notebook.printed is not None


def trend(axes: Axes, frame: pd.DataFrame, x: str, y: str) -> float | None:
    """Least-squares line with its bootstrap band; returns its slope, None with too few points."""
    line = fit_line(frame[x], frame[y])
    if line is not None:
        axes.plot(line.x, line.y, color=style.GREY, linewidth=0.9, zorder=1.5)
        axes.fill_between(line.x, line.low, line.high, color=style.GREY, alpha=0.18, linewidth=0, zorder=1)
    return line.slope if line else None


def coefficients(frame: pd.DataFrame, x: str, y: str, words: bool = True) -> list[str]:
    """Pearson's and Spearman's coefficients with intervals, and n, as texts."""
    found = []
    for kind, symbol in (("pearson", "r"), ("spearman", "ρ")):
        value = correlate(frame[x], frame[y], frame["family"], kind, test=False)
        if np.isfinite(value.value):
            low, high = value.interval
            interval = f" [{low:.2f}, {high:.2f}]" if np.isfinite(low) else ""
            found.append(f"{f'{kind.title()} ' * words}{symbol} = {value.value:.2f}{interval}")
    return [*found, f"n = {int(finite(frame[x], frame[y]).sum())}"]


def limits(axes: Axes, x: Sequence[float], y: Sequence[float]) -> None:
    """Limits by the points, with room for labels below; the trend's band is cut there."""
    for values, setter, below in ((x, axes.set_xlim, 0.07), (y, axes.set_ylim, 0.14)):
        values = np.asarray(values, float)
        low, high = np.nanmin(values), np.nanmax(values)
        span = (high - low) or 1.0
        setter(low - below * span, high + 0.07 * span)


def near(values: pd.Series, among: pd.Series | None = None) -> pd.Series:
    """Which of the values are not so far out that they would press all others (`among`, or these)
    together."""
    among = values if among is None else among
    first, third = among.quantile(0.25), among.quantile(0.75)
    fence = FENCE * (third - first)
    return values.between(first - fence, third + fence)


def fit(axes: Axes, frame: pd.DataFrame, x: str, y: str, unnamed: pd.DataFrame | None = None) -> bool:
    """Limits by the points and their bars. A point so far out that it would press all others together
    stands at the edge as a triangle, with its name and value (those in `unnamed` do not); whether there
    is one."""
    ends = []
    for name in (x, y):
        rows = pd.concat([frame, unnamed]) if unnamed is not None else frame
        rows = rows[near(rows[name], among=frame[name])]
        bars = rows.get(f"{name}_seed_sd", pd.Series(0.0, index=rows.index)).fillna(0)
        ends.append([*(rows[name] - bars), *(rows[name] + bars)])
    limits(axes, *ends)
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    far = frame.dropna(subset=[x, y])
    far = far[~(far[x].between(left, right) & far[y].between(bottom, top))]
    found = []
    for row in far.to_dict("records"):
        place = float(np.clip(row[x], left, right)), float(np.clip(row[y], bottom, top))
        beyond = [row[name] for name, at in zip((x, y), place, strict=True) if row[name] != at]
        marker = (">" if row[x] > right else "<") if place[0] != row[x] else ("^" if row[y] > top else "v")
        axes.plot(*place, marker, color=looks.color(row["family"]), markersize=4.5, clip_on=False, zorder=5)
        found.append(_Beyond(place, marker, row["family"], looks.name(row), tuple(beyond)))
    for edge in "<>^v":
        _name_beyond(axes, [point for point in found if point.edge == edge], edge)
    return len(far) > 0


@dataclass(frozen=True)
class _Beyond:
    """A point beyond the axes: where its triangle stands, at which edge, and the values that are beyond."""

    place: tuple[float, float]
    edge: str
    family: str
    name: str
    values: tuple[float, ...]


def _name_beyond(axes: Axes, points: Sequence[_Beyond], edge: str) -> None:
    """Write the names of the triangles at one edge beside them; neighbours stand together, in the order of
    the triangles, several of one family in one line."""
    along, (low, high) = (1, axes.get_ylim()) if edge in "<>" else (0, axes.get_xlim())

    def overlap(upper: Sequence[_Beyond], lower: Sequence[_Beyond]) -> bool:
        a, b = (np.mean([point.place[along] for point in group]) for group in (upper, lower))
        rooms = [LINE * (_words(group).count("\n") + 1) if along else WIDTH for group in (upper, lower)]
        return a - b < (high - low) * np.mean(rooms)

    groups: list[list[_Beyond]] = []
    for point in sorted(points, key=lambda point: -point.place[along]):
        groups.append([point])
        while len(groups) > 1 and overlap(*groups[-2:]):
            groups[-2:] = [groups[-2] + groups[-1]]
    for group in groups:
        place = tuple(np.mean([point.place for point in group], axis=0))
        left = place[0] < np.mean(axes.get_xlim())
        shift = (5 if left else -5, 0 if along else (-5 if edge == "^" else 5))
        text = axes.annotate(
            _words(group), place, shift, textcoords="offset points", ha="left" if left else "right"
        )
        text.set(fontsize=5.5, va="center" if along else ("top" if edge == "^" else "bottom"), zorder=5)
        text.set(path_effects=[withStroke(linewidth=2, foreground="white")])


def _words(group: Sequence[_Beyond]) -> str:
    several = len(group) > 2 and len({point.family for point in group}) == 1
    if several and all(len(point.values) == 1 for point in group):
        values = sorted(point.values[0] for point in group)
        return f"{looks.family(group[0].family).label}, {len(group)}: {values[0]:.3g} to {values[-1]:.3g}"
    return "\n".join(
        f"{point.name}: {', '.join(f'{value:.3g}' for value in point.values)}" for point in group
    )


def name_axes(axes: Axes, x: str, y: str, width: int = 60) -> None:
    """Axes named in words, with the direction that is flat or robust; lines of `width` characters."""
    for name, setter in ((x, axes.set_xlabel), (y, axes.set_ylabel)):
        words, direction = schema.describe(name), schema.direction(name)
        words = textwrap.fill(words[0].upper() + words[1:], width)
        setter(f"{words}\n({direction})" if direction else words)


def panel(
    axes: Axes,
    layer: Layer,
    x: str,
    y: str,
    extra: pd.DataFrame,
    narrow: bool = False,
    words: bool = True,
    title: str | None = None,
    near: bool = True,
) -> bool:
    """One correlation plot: points, trend, named axes, coefficients above it; whether a point lies beyond
    its axes.

    `extra` are points outside the correlation (networks of others). A narrow panel has shorter lines;
    without `words`, coefficients are named by their symbols alone. Unless `near`, the axes reach to
    every point.
    """
    frame = layer.counted.dropna(subset=[x, y])
    trend(axes, frame, x, y)
    points(axes, frame, x, y, layer.beside)
    everything = others(axes, frame, extra, x, y)
    name_axes(axes, x, y, 28 if narrow else 60)
    beyond = near and fit(axes, everything, x, y)
    if not near:
        limits(axes, everything[x], everything[y])
    apart(axes, layer.unlearnt, x, y)
    found = coefficients(frame, x, y, words=words)
    lines = [found[0], ", ".join(found[1:])] if narrow and len(found) > 1 else [", ".join(found)]
    name = layer.name if title is None else title
    axes.set_title("\n".join([*([name] if name else []), *lines]), fontsize=6.5)
    return beyond


def label_points(
    axes: Axes,
    notebook: Notebook,
    layer: Layer,
    x: str,
    y: str,
    variants: bool = False,
    robustbench: bool = False,
) -> None:
    """Name points beside them: the experiment's networks of others, all; of `variants`, one of each family
    that asks for it, or all if they are few. `robustbench` as in `others_of`. Call it when the figure is
    otherwise complete."""
    both = layer.counted, others_of(notebook, layer, robustbench)
    within = [frame[(frame[x] <= axes.get_xlim()[1]) & (frame[y] <= axes.get_ylim()[1])] for frame in both]
    frame, named = pd.concat(within), [look.named for look in looks.every().values()]
    asked = frame["variant"].isin(named if len(within[0]) > FEW else within[0]["variant"])
    chosen = frame[(asked & variants) | (aggregate.external(frame) & is_own(notebook, layer))]
    if variants or len(chosen):
        place_labels(
            axes,
            [(row[x], row[y], looks.name(row)) for row in chosen.to_dict("records")],
            [*frame[[x, y]].itertuples(index=False, name=None)],
            axes.texts,
        )


def comparison_note(notebook: Notebook, *columns: str) -> str:
    """What to compare between ours and the published plot: everything on the same data, else rank and
    sign, with the rank correlation of ours with theirs."""
    if notebook.printed is None:
        return ""
    note = notebook.beside("Hollow: as printed in the paper, CIFAR-10", "compare rank and sign, not values")
    joined = aggregate.join_published(notebook.ours.counted, notebook.printed.variants)
    ranks = []
    for name in [] if notebook.same_data else columns:
        theirs = f"{name}_published"
        if aggregate.has(joined, name, theirs, rows=4):
            kept = finite(joined[name], joined[theirs])
            rho = coefficient(joined[name][kept], joined[theirs][kept], "spearman")
            ranks.append(f"{schema.describe(name)} ρ = {rho:.2f}")
    return note + (f" Rank correlation of ours with the printed numbers: {'; '.join(ranks)}." * bool(ranks))


def show(notebook: Notebook, pairs: Sequence[tuple[str, str]], **options) -> Saved:
    """Draw and write a `correlation_figure`."""
    missing = notebook.missing(*dict.fromkeys(sum(pairs, ())))
    shown = pd.concat([notebook.ours.counted, others_of(notebook, notebook.ours)])
    drawn = any(aggregate.has(shown, *pair) for pair in pairs)
    return notebook.show(lambda: correlation_figure(notebook, pairs, **options), "" if drawn else missing)


def correlation_figure(
    notebook: Notebook,
    pairs: Sequence[tuple[str, str]],
    labelled: bool = False,
    height: float = 3.0,
    robustbench: bool = False,
) -> Figure:
    """Correlation plots, a panel per pair (x, y): of ours, and under or beside them the printed ones.

    Measures that a layer lacks have no panel and are named in the note.
    """
    extra = {layer: others_of(notebook, layer, robustbench) for layer in notebook.layers}
    shown = {layer: pd.concat([layer.counted, others]) for layer, others in extra.items()}
    rows = [
        [(layer, *pair) for pair in pairs if aggregate.has(frame, *pair)] for layer, frame in shown.items()
    ]
    if len(pairs) == 1:
        rows = [[cell for row in rows for cell in row]]
    rows = [row for row in rows if row]
    columns = max(map(len, rows))
    note = [INTERVALS, comparison_note(notebook, *dict.fromkeys(sum(pairs, ())))]
    for layer, said in zip(notebook.layers, ("Not measured", "Not printed"), strict=False):
        lacking = [schema.describe(x) for x, y in pairs if not aggregate.has(shown[layer], x, y)]
        if lacking:
            said = "Not printed" if notebook.printed is None else said
            note.append(f"{said}: {', '.join(lacking)}.")
    note += [layer.note for layer in notebook.layers]
    note.append(others_note(notebook).strip())
    families = [*(name for layer in notebook.layers for name in layer.variants["family"])]
    entries = style.handles(families, [name for frame in extra.values() for name in frame["family"]])
    single = columns == len(rows) == 1
    tall = max(height + 0.35, 3.7) if single else height * len(rows) + 0.75
    figure, grid = style.cells(len(rows), columns, height=tall)
    drawn, beyond = [], False
    for row, cells in enumerate(rows):
        for column, (layer, x, y) in enumerate(cells):
            axes = figure.add_subplot(grid[row, column])
            beyond |= panel(
                axes,
                *(layer, x, y, extra[layer]),
                narrow=columns > 2,
                words=columns == 1,
                title="" if notebook.printed is None else layer.title(),
            )
            drawn.append((axes, layer, x, y))
    free = next(((row, len(cells)) for row, cells in enumerate(rows) if len(cells) < columns), None)
    text = " ".join(filter(None, [*note, BEYOND * beyond]))
    if free is not None:
        style.legend_inside(figure.add_subplot(grid[free[0], free[1] :]), entries)
        style.note(figure, text)
    elif single:
        style.legend_beside(figure, entries)
        style.note(figure, text)
    else:
        style.legend_below(figure, entries, text=text)
    for axes, layer, x, y in drawn:
        label_points(axes, notebook, layer, x, y, labelled, robustbench)
    return figure
