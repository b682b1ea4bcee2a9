"""Curves over epochs: selection, drawing, drops of the learning rate, scales."""

import textwrap
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from robust_flatness.plotting import looks, style
from robust_flatness.plotting.layer import Layer
from robust_flatness.tables import aggregate, frames

EPOCH, EPOCH_NAME = "normalised_epoch", "Epoch (share of training)"
#: Initial fraction of a training that axis limits ignore: its losses may be a thousand times the final ones.
EARLY = 0.2
#: Meaning of parentheses after a hyper-parameter.
APPLIED = "In parentheses: the value used here where it is not the paper's."
#: Legend entry of the baseline behind other curves.
BASELINE = {"AT (baseline)": Line2D([], [], color=style.LIGHT, linewidth=2.5)}


def of(frame: pd.DataFrame, variant: str, *columns: str) -> pd.DataFrame:
    """Return a variant's rows in order of epochs, those with a value in all of `columns`."""
    rows = frame[frame["variant"] == variant].sort_values(EPOCH)
    return rows.dropna(subset=[*columns]) if {*columns} <= {*rows} else rows.iloc[:0]


def draw(
    axes: Axes, layer: Layer, rows: pd.DataFrame, column: str, color: str, label: str = "", **look
) -> None:
    """Draw one curve over epochs, if it has values, with a band of one standard deviation over seeds; curves
    of printed numbers beside ours are dashed and have no label."""
    if not aggregate.has(rows, column):
        return
    look = style.PUBLISHED if layer.beside else {"label": label or None, **look}
    rows = rows.dropna(subset=[column])
    axes.plot(rows[EPOCH], rows[column], color=color, **look)
    spread = f"{column}_seed_sd"
    if aggregate.has(rows, spread):
        low, high = rows[column] - rows[spread], rows[column] + rows[spread]
        axes.fill_between(rows[EPOCH], low, high, color=color, alpha=0.15, linewidth=0)


def test_curve(layer: Layer, variant: str) -> pd.DataFrame:
    """Return a variant's test RLoss over epochs as `test_rloss`: from its training curves or else from its
    snapshots."""
    rows = of(layer.history, variant, "test_rloss")
    if rows.empty:
        rows = of(layer.series, variant, "test_rloss_pgd")
    return rows.rename(columns=lambda name: name.replace("test_rloss_pgd", "test_rloss"))


def mark_drops(axes: Axes, history: pd.DataFrame, variant: str = "at") -> None:
    """Draw dotted vertical lines where a variant's learning rate drops, with an entry for the legend."""
    rows = of(history, variant, "learning_rate")
    label = "drop of the learning rate"
    for share in rows[EPOCH][rows["learning_rate"].diff().shift(-1) < 0]:
        axes.axvline(share, color="#909090", linewidth=0.7, linestyle=":", zorder=0, label=label)
        label = None


def published(axes: Sequence[Axes]) -> dict[str, Line2D]:
    """Return a legend entry for published curves, if there are any."""
    drawn = any(line.get_gid() == "published" for panel in axes for line in panel.lines)
    entry = Line2D([], [], color=style.GREY, **style.PUBLISHED)
    return {"dashed: published, CIFAR-10": entry} if drawn else {}


def scale(panels: Sequence[Axes], together: bool = False, ours: bool = False) -> str:
    """Set the limits of the vertical axes from the curves without their first fifth, and mark curves beyond
    the limits by triangles at the edge; return a sentence about these, "" if there are none. With `together`,
    all panels get the same limits; with `ours`, published curves do not count."""
    farthest = 0.0
    for group in [[*panels]] if together else [[axes] for axes in panels]:
        curves = [
            (axes, line, *np.asarray(line.get_data(), float))
            for axes in group
            for line in axes.lines
            if len(line.get_xdata()) > 2 and not (ours and line.get_gid() == "published")
        ]
        late = np.concatenate([[], *(y[x > x[0] + EARLY * (x[-1] - x[0])] for _, _, x, y in curves)])
        late = late[np.isfinite(late)]
        late = late[style.near(late)] if together else late
        if not len(late):
            continue
        margin = 0.06 * (np.ptp(late) or abs(late.max()) or 1.0)
        low, high = late.min() - margin, late.max() + margin
        for axes in group:
            axes.set_ylim(low, high)
        for axes, line, x, y in curves:
            beyond = np.flatnonzero((y < low) | (y > high))
            if len(beyond):
                first = beyond[np.argmax(np.abs(y[beyond]))]
                edge, marker = (high, "^") if y[first] > high else (low, "v")
                axes.plot(x[first], edge, marker, color=line.get_color(), markersize=4, clip_on=False)
                farthest = max(farthest, y[first], key=abs)
    where = f"values beyond the axis, up to {farthest:.3g}, mostly before the training has settled"
    return f"Triangles: {where}." if farthest else ""


def by_hyperparameter(frame: pd.DataFrame, families: Sequence[str]) -> dict[str, str]:
    """Return variants of some families in the order of their hyper-parameter: slug -> its value as text, with
    the value used in training in parentheses if that differs."""
    order = [*frames.catalogue()]
    named = []
    for row in frame[frame["family"].isin(families)].to_dict("records"):
        slug, applied, number = row["variant"], looks.applied(row), looks.NUMBER.search(row["variant"])
        value = number[1] if number else looks.variant(slug, row.get("label", ""))
        place = order.index(slug) if slug in order else len(order)
        words = f"{value} ({applied})" if applied else value
        named.append((float(number[1]) if number else np.inf, place, slug, words))
    return {slug: words for _, _, slug, words in sorted(named)}


def parameter_title(method: str, values: Iterable[str]) -> str:
    """Return a panel's title: the method, and below it the values of its hyper-parameter in their order."""
    return f"{method}\n{textwrap.fill(', '.join(values), 38)}"
