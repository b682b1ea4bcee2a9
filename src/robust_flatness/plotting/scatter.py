"""Scatter plots of variants: points by family, trend with band, coefficients in the plot."""

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robust_flatness import tables as results
from robust_flatness.analysis.correlation import coefficient, correlate, finite, fit_line
from robust_flatness.plotting import looks, style
from robust_flatness.plotting.labels import place_labels
from robust_flatness.plotting.notebook import Notebook

MARKER_AREA = 22
#: So many variants can all be named.
FEW = 12
INTERVALS = "Brackets: 95 % BCa bootstrap over variants or families, the wider one."


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


def trend(axes: Axes, frame: pd.DataFrame, x: str, y: str) -> float | None:
    """Least-squares line with its bootstrap band; returns its slope, None with too few points."""
    line = fit_line(frame[x], frame[y])
    if line is not None:
        axes.plot(line.x, line.y, color=style.GREY, linewidth=0.9, zorder=1.5)
        axes.fill_between(line.x, line.low, line.high, color=style.GREY, alpha=0.18, linewidth=0, zorder=1)
    return line.slope if line else None


def coefficients_text(frame: pd.DataFrame, x: str, y: str, compact: bool = False) -> str:
    """Pearson's and Spearman's coefficients with intervals, and n, in three lines (compact: two)."""
    lines = []
    n = int(finite(frame[x], frame[y]).sum())
    for kind, symbol in (("pearson", "r"), ("spearman", "ρ")):
        found = correlate(frame[x], frame[y], frame["family"], kind, test=False)
        if np.isfinite(found.value):
            low, high = found.interval
            interval = f" [{low:.2f}, {high:.2f}]" if np.isfinite(low) else ""
            name = symbol if compact else f"{kind.title()} {symbol}"
            lines.append(f"{name} = {found.value:.2f}{interval}")
    if compact and lines:
        lines[-1] += f", n = {n}"
        return "\n".join(lines)
    return "\n".join([*lines, f"n = {n}"])


def limits(axes: Axes, x: Sequence[float], y: Sequence[float]) -> None:
    """Limits by the points, with room for text above and below; the trend's band is cut there."""
    for values, setter, below, above in ((x, axes.set_xlim, 0.05, 0.05), (y, axes.set_ylim, 0.1, 0.2)):
        values = np.asarray(values, float)
        low, high = np.nanmin(values), np.nanmax(values)
        span = (high - low) or 1.0
        setter(low - below * span, high + above * span)


def in_corner(axes: Axes, text: str, x: Sequence[float], y: Sequence[float], fontsize: float = 6.5):
    """Text in the emptiest corner of a plot; the text's box, for labels to keep out of."""
    kept = finite(x, y)
    data = np.column_stack([np.asarray(x, float)[kept], np.asarray(y, float)[kept]])
    places = axes.transAxes.inverted().transform(axes.transData.transform(data)) if len(data) else data
    corners = {(0.02, 0.98): ("left", "top"), (0.98, 0.02): ("right", "bottom")}
    corners |= {(0.98, 0.98): ("right", "top"), (0.02, 0.02): ("left", "bottom")}

    def crowd(corner: tuple[float, float]) -> float:
        if not len(places):
            return 0
        # The text is wide and low: a box of about 0.55 x 0.3 of the plot.
        near = np.abs(places - corner) / (0.55, 0.3)
        return float(np.sum(near.max(axis=1) < 1))

    corner = min(corners, key=crowd)
    ha, va = corners[corner]
    return axes.text(
        *corner,
        text,
        ha=ha,
        va=va,
        fontsize=fontsize,
        transform=axes.transAxes,
        linespacing=1.35,
        zorder=5,
        bbox={"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
    )


def name_axes(axes: Axes, x: str, y: str, width: int = 60) -> None:
    """Axes named in words, with the direction that is flat or robust; lines of `width` characters."""
    for name, setter in ((x, axes.set_xlabel), (y, axes.set_ylabel)):
        words, direction = results.describe(name), results.direction(name)
        words = textwrap.fill(words[0].upper() + words[1:], width)
        setter(f"{words}\n({direction})" if direction else words)


def panel(
    axes: Axes,
    frame: pd.DataFrame,
    x: str,
    y: str,
    title: str = "",
    hollow: bool = False,
    extra: pd.DataFrame | None = None,
    size: float = MARKER_AREA,
    remedy: str = "not measured",
    compact: bool = False,
) -> None:
    """One correlation plot: points, trend, coefficients, named axes.

    `extra` are points outside the correlation (RobustBench). Without the measures the panel says so.
    In a compact panel the coefficients stand above it.
    """
    axes.set_title(title)
    if not results.has(frame, x, y):
        lacking = [results.describe(name) for name in (x, y) if not results.has(frame, name)]
        style.message(axes, f"{remedy}:\n" + "\n".join(lacking))
        return
    frame = frame.dropna(subset=[x, y])
    trend(axes, frame, x, y)
    points(axes, frame, x, y, hollow, size)
    everything = frame[[x, y]]
    if extra is not None and results.has(extra, x, y):
        points(axes, extra, x, y, hollow=True, size=size)
        everything = pd.concat([everything, extra[[x, y]]])
    name_axes(axes, x, y, 30 if compact else 60)
    limits(axes, everything[x], everything[y])
    text = coefficients_text(frame, x, y, compact)
    if compact:
        axes.set_title(f"{title}\n{text}".strip(), fontsize=6.5)
    else:
        in_corner(axes, text, everything[x], everything[y])


def label_variants(
    axes: Axes,
    frame: pd.DataFrame,
    x: str,
    y: str,
    extra: pd.DataFrame | None = None,
) -> None:
    """Name a variant of each family that asks for it beside its point, all variants if they are few.
    Call it when the figure is otherwise complete."""
    frame = frame.dropna(subset=[x, y])
    named = [look.named for look in looks.every().values()]
    chosen = frame if len(frame) <= FEW else frame[frame["variant"].isin(named)]
    names = [looks.variant(*pair) for pair in zip(chosen["variant"], chosen["label"], strict=True)]
    place_labels(
        axes,
        [*zip(chosen[x], chosen[y], names, strict=True)],
        [*pd.concat([frame, extra])[[x, y]].dropna().itertuples(index=False, name=None)],
        [*axes.texts],
    )


def comparison_note(notebook: Notebook, *columns: str) -> str:
    """What to compare between ours and the published plot: everything on the same data, else rank and
    sign, with the rank correlation of ours with theirs."""
    if notebook.same_data:
        return "Hollow: as printed in the paper, same dataset."
    joined = results.join_published(notebook.variants, notebook.published.variants)
    ranks = []
    for name in columns:
        theirs = f"{name}_published"
        if results.has(joined, name, theirs, rows=4):
            kept = finite(joined[name], joined[theirs])
            rho = coefficient(joined[name][kept], joined[theirs][kept], "spearman")
            ranks.append(f"{results.describe(name)} ρ = {rho:.2f} (n = {kept.sum()})")
    text = "Published: CIFAR-10, hollow markers. Another dataset here: compare rank and sign, not values."
    return text + (f"\nRank correlation of ours with published: {'; '.join(ranks)}." if ranks else "")


def correlation_figure(
    notebook: Notebook,
    pairs: Sequence[tuple[str, str]],
    labelled: bool = False,
    height: float = 3.0,
    robustbench: bool = False,
) -> Figure:
    """Correlation plots of one experiment, a panel per pair (x, y), and the published ones under or
    beside them."""
    ours, theirs = notebook.variants, notebook.published
    if not any(results.has(ours, x, y) for x, y in pairs):
        return style.missing_page(notebook.name, notebook.missing(*dict.fromkeys(sum(pairs, ()))))
    extra = theirs.robustbench if robustbench else None
    absent = [(x, y) for x, y in pairs if not results.has(ours, x, y)]
    pairs = [pair for pair in pairs if pair not in absent]
    lacking = ", ".join(results.describe(x) for x, _ in absent)
    drawn = [*((ours, x, y) for x, y in pairs)]
    compact = len(pairs) > 2
    if notebook.is_paper:
        figure, axes = style.panels(1, len(pairs), height=height + 1.1)
        for plot, (x, y) in zip(axes, pairs, strict=True):
            panel(plot, ours, x, y, "", extra=extra, compact=compact)
        note = INTERVALS
        shown = ours
    else:
        drawn += [(theirs.variants, x, y) for x, y in pairs]
        rows, columns = (1, 2) if len(pairs) == 1 else (2, len(pairs))
        figure, axes = style.panels(rows, columns, height=height * rows + 0.9)
        for index, (x, y) in enumerate(pairs):
            count = int(finite(*(ours.get(name, np.full(len(ours), np.nan)) for name in (x, y))).sum())
            title = f"{notebook.experiment} ({count} variants)"
            panel(axes[index], ours, x, y, title, compact=compact)
            panel(
                axes[len(pairs) + index],
                *(theirs.variants, x, y, "published, CIFAR-10"),
                hollow=True,
                extra=extra,
                remedy="not printed",
                compact=compact,
            )
        note = comparison_note(notebook, *dict.fromkeys(sum(pairs, ())))
        note = f"{INTERVALS} {note}"
        shown = pd.concat([ours[["family"]], theirs.variants[["family"]]])
    if lacking:
        note += f" {'Not printed' if notebook.is_paper else 'Not measured'}: {lacking}."
    families = [*shown["family"], *(["robustbench"] if robustbench else [])]
    style.legend_below(figure, style.handles(families), text=note)
    for plot, (frame, x, y) in zip(axes, drawn, strict=True):
        if labelled and results.has(frame, x, y):
            label_variants(plot, frame, x, y, extra)
    return figure
