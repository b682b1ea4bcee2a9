"""Curves over epochs: of one variant's history or series, learning-rate drops, axes, small multiples."""

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import same_color
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullLocator

from robust_flatness.plotting import looks, style
from robust_flatness.plotting.layer import Layer
from robust_flatness.tables import aggregate, frames

EPOCH = "normalised_epoch"


def of(frame: pd.DataFrame, variant: str, *columns: str) -> pd.DataFrame:
    """A variant's rows in order of epochs, those with a value in all of `columns`."""
    rows = frame[frame["variant"] == variant].sort_values(EPOCH)
    return rows.dropna(subset=list(columns)) if columns else rows


def draw(axes: Axes, layer: Layer, rows: pd.DataFrame, column: str, **look) -> Line2D | None:
    """One curve over epochs, dashed where printed beside ours, with a band of one standard deviation over
    seeds where there are several. Returns the line; None without values."""
    if not aggregate.has(rows, column):
        return None
    if layer.beside:
        look = {**style.PUBLISHED, "color": look.get("color", style.GREY)}
    rows = rows.dropna(subset=[column])
    (line,) = axes.plot(rows[EPOCH], rows[column], **look)
    spread = f"{column}_seed_sd"
    if aggregate.has(rows, spread):
        low, high = rows[column] - rows[spread], rows[column] + rows[spread]
        axes.fill_between(rows[EPOCH], low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    return line


def test_curve(layer: Layer, variant: str) -> pd.DataFrame:
    """A variant's test RLoss over epochs as `test_rloss`: from its training curves or, where there are
    none, from its snapshots."""
    rows = of(layer.history, variant, "test_rloss")
    if len(rows):
        return rows
    rows = of(layer.series, variant, "test_rloss_pgd")
    return rows.rename(columns=lambda name: name.replace("test_rloss_pgd", "test_rloss"))


def drops(history: pd.DataFrame, variant: str = "at") -> list[float]:
    """Where the learning rate falls, as shares of the training."""
    rows = of(history, variant, "learning_rate")
    falls = np.flatnonzero(np.diff(rows["learning_rate"].to_numpy()) < 0)
    return [float(value) for value in rows[EPOCH].to_numpy()[falls]]


def mark_drops(axes: Axes, where: Iterable[float]) -> None:
    """Thin vertical lines at the learning-rate drops, with an entry for the legend."""
    for index, share in enumerate(where):
        label = None if index else "the learning rate drops"
        axes.axvline(share, color="#909090", linewidth=0.7, linestyle=":", zorder=0, label=label)


def scale(
    panels: Sequence[Axes], together: bool = False, room: float = 0.0, logarithmic: bool = False
) -> bool:
    """Set the vertical axes by what follows the first fifth of each curve, which may lie far beyond; what is
    off the scale is marked by a triangle at the edge, with its value. Whether anything is.

    `together`: all panels get one scale; `room`: a share of the axis left free above the curves;
    `logarithmic`: so where values differ more than fivefold.
    """
    groups = [list(panels)] if together else [[axes] for axes in panels]
    marked = False
    for group in groups:
        curves = [(axes, line) for axes in group for line in axes.lines if _is_curve(axes, line)]
        parts = [_early_and_late(line) for _, line in curves]
        early, later = (np.concatenate([part[i] for part in parts] or [np.zeros(0)]) for i in (0, 1))
        early, later = early[np.isfinite(early)], later[np.isfinite(later)]
        if not len(later):
            continue
        logarithmic = logarithmic and later.max() > 5 * later.min() > 0
        for axes in group if logarithmic else []:
            _logarithmic(axes)
        low, high = later.min(), later.max()
        span = high - low
        near = early[(early > low - 0.3 * span) & (early < high + 0.3 * span)]
        low, high = min([low, *near]), max([high, *near])
        low, high = _with_margin(low, high, logarithmic, room)
        for axes in group:
            axes.set_ylim(low, high)
        for axes in group:
            marked |= _mark_beyond(axes, [line for other, line in curves if other is axes], low, high)
    return marked


#: Share of a curve that does not set the axis.
EARLY = 0.2
#: What a triangle at the edge means.
BEYOND = "Triangles: early values beyond the axis, written beside them."


def _early_and_late(line: Line2D) -> tuple[np.ndarray, np.ndarray]:
    """A curve's values in the first fifth of its length, the first one among them, and the others."""
    x, y = (np.asarray(data, float) for data in (line.get_xdata(), line.get_ydata()))
    if len(y) <= 2:
        return y[:0], y
    late = x >= x[0] + EARLY * (x[-1] - x[0])
    late[0] = False
    return y[~late], y[late]


def _is_curve(axes: Axes, line: Line2D) -> bool:
    return line.get_transform() == axes.transData and len(line.get_xdata()) > 1


def _logarithmic(axes: Axes) -> None:
    """A logarithmic axis that reads 1, 2, 5, 10."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=6))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())


def _with_margin(low: float, high: float, logarithmic: bool, room: float) -> tuple[float, float]:
    if logarithmic and high > low > 0:
        ratio = high / low
        return low / ratio**0.06, high * ratio ** (0.06 + room)
    span = (high - low) or abs(high) or 1.0
    return low - 0.06 * span, high + (0.06 + room) * span


def _mark_beyond(axes: Axes, lines: Sequence[Line2D], low: float, high: float) -> bool:
    """Mark where each curve leaves the axis farthest, and write the values of marks side by side as one
    text; those of a baseline behind the curves have none. Whether any leaves it."""
    found: list[tuple[bool, float, float]] = []
    left, right = axes.get_xlim()
    marked = False
    for line in lines:
        x, y = (np.asarray(data, float) for data in line.get_data())
        outside = np.flatnonzero((y < low) | (y > high))
        if not len(outside):
            continue
        marked = True
        first = outside[np.argmax(np.abs(y[outside]))]
        top = bool(y[first] > high)
        edge, marker = (high, "^") if top else (low, "v")
        axes.plot(x[first], edge, marker, color=line.get_color(), markersize=4, clip_on=False, zorder=5)
        if not same_color(line.get_color(), style.LIGHT):
            found.append((top, x[first], y[first]))
    groups: list[list[tuple[bool, float, float]]] = []
    for mark in sorted(found):
        if groups and groups[-1][0][0] == mark[0] and mark[1] - groups[-1][-1][1] < 0.25 * (right - left):
            groups[-1].append(mark)
        else:
            groups.append([mark])
    for group in groups:
        (top, *_), where, values = zip(*group, strict=True)
        ends = dict.fromkeys(f"{v:.3g}" if v < 1000 else f"{v:.0f}" for v in (min(values), max(values)))
        text = axes.annotate(
            " to ".join(ends),
            *((max(where), high if top else low), (5, -4 if top else 4)),
            textcoords="offset points",
            **{"fontsize": 5.5, "color": "#404040", "va": "center", "ha": "left", "zorder": 6},
        )
        text.set_path_effects([withStroke(linewidth=2, foreground="white")])
    return marked


def coinciding(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], tolerance: float = 0.02
) -> dict[str, list[str]]:
    """Groups of curves that cannot be told apart: the first one's name -> all of its group.

    Curves (x, y) coincide where they have the same x and their values differ by at most the share
    `tolerance`.
    """
    groups: dict[str, list[str]] = {}
    for name, (x, y) in curves.items():
        for first, group in groups.items():
            other_x, other_y = curves[first]
            same = len(x) == len(other_x) and np.allclose(x, other_x)
            if same and np.allclose(y, other_y, rtol=tolerance, atol=0, equal_nan=True):
                group.append(name)
                break
        else:
            groups[name] = [name]
    return groups


def by_hyperparameter(frame: pd.DataFrame, families: Sequence[str]) -> list[tuple[str, str]]:
    """Variants of some families in the order of their hyper-parameter: (slug, its value as text), with
    the value applied in parentheses where that is another."""
    rows = {row["variant"]: row for row in frame[frame["family"].isin(families)].to_dict("records")}
    order = [*frames.catalogue()]
    named = []
    for slug, row in rows.items():
        match = re.search(r"-(\d+(?:\.\d+)?)$", slug)
        value, applied = match[1] if match else looks.variant(slug, row.get("label", "")), looks.applied(row)
        value += f" ({applied})" if applied else ""
        position = order.index(slug) if slug in order else len(order)
        named.append((float(match[1]) if match else float("inf"), position, slug, value))
    return [(slug, value) for _, _, slug, value in sorted(named)]


def span(values: Sequence[str]) -> str:
    """Values of `by_hyperparameter` whose variants cannot be told apart, as one label."""
    if len(values) == 1:
        return values[0]
    first, last = (value.partition(" (")[0] for value in (values[0], values[-1]))
    return f"{first} to {last} (coincide)"


#: What parentheses after a hyper-parameter mean.
APPLIED = "In parentheses: the value used here, where it is not the paper's."
