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
#: First share of a training, which sets no axis: losses there may be a thousand times those at the end.
EARLY = 0.2


def of(frame: pd.DataFrame, variant: str, *columns: str) -> pd.DataFrame:
    """Return a variant's rows in order of epochs, those with a value in all of `columns`."""
    rows = frame[frame["variant"] == variant].sort_values(EPOCH)
    if not columns:
        return rows
    return rows.dropna(subset=[*columns]) if {*columns} <= {*rows} else rows.iloc[:0]


def draw(axes: Axes, layer: Layer, rows: pd.DataFrame, column: str, **look) -> Line2D | None:
    """Draw one curve over epochs, dashed where published, with a band of one standard deviation over seeds;
    returns the line, None without values."""
    if not aggregate.has(rows, column):
        return None
    if layer.beside:
        look = {"color": look.get("color", style.GREY), **style.PUBLISHED}
    rows = rows.dropna(subset=[column])
    (line,) = axes.plot(rows[EPOCH], rows[column], **look)
    spread = f"{column}_seed_sd"
    if aggregate.has(rows, spread):
        low, high = rows[column] - rows[spread], rows[column] + rows[spread]
        axes.fill_between(rows[EPOCH], low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    return line


def test_curve(layer: Layer, variant: str) -> pd.DataFrame:
    """Return a variant's test RLoss over epochs as `test_rloss`: from its training curves or else from its
    snapshots."""
    rows = of(layer.history, variant, "test_rloss")
    if rows.empty:
        rows = of(layer.series, variant, "test_rloss_pgd")
    return rows.rename(columns=lambda name: name.replace("test_rloss_pgd", "test_rloss"))


def drops(history: pd.DataFrame, variant: str = "at") -> list[float]:
    """Return where the learning rate falls, as shares of the training."""
    rows = of(history, variant, "learning_rate")
    falls = np.flatnonzero(np.diff(rows["learning_rate"].to_numpy()) < 0)
    return [float(value) for value in rows[EPOCH].to_numpy()[falls]]


def mark_drops(axes: Axes, where: Iterable[float]) -> None:
    """Draw dotted vertical lines at the drops of the learning rate, with an entry for the legend."""
    for index, share in enumerate(where):
        label = None if index else "drop of the learning rate"
        axes.axvline(share, color="#909090", linewidth=0.7, linestyle=":", zorder=0, label=label)


def published(axes: Sequence[Axes]) -> dict[str, Line2D]:
    """Return a legend entry for published curves, if there are any."""
    drawn = any(line.get_gid() == "published" for panel in axes for line in panel.lines)
    entry = Line2D([], [], color=style.GREY, **style.PUBLISHED)
    return {"dashed: published, CIFAR-10": entry} if drawn else {}


def scale(panels: Sequence[Axes], together: bool = False, ours: bool = False) -> str:
    """Set the vertical axes by what follows the first fifth of each curve, and mark by triangles at the edge
    where curves start beyond; returns a sentence about what lies beyond, "" if nothing does. `together`: all
    panels get one scale; `ours`: published curves do not count."""
    farthest = 0.0
    for group in [list(panels)] if together else [[axes] for axes in panels]:
        curves = [(axes, line) for axes in group for line in axes.lines if len(line.get_xdata()) > 2]
        counted = [line for _, line in curves if not (ours and line.get_gid() == "published")]
        late = np.concatenate([np.zeros(0), *(line.get_ydata()[_late(line)] for line in counted)])
        late = late[np.isfinite(late)]
        late = late[style.near(late)] if together else late
        if not len(late):
            continue
        margin = 0.06 * (np.ptp(late) or abs(late.max()) or 1.0)
        low, high = late.min() - margin, late.max() + margin
        for axes in group:
            axes.set_ylim(low, high)
        for axes, line in curves:
            x, y = (np.asarray(data, float) for data in line.get_data())
            beyond = np.flatnonzero((y < low) | (y > high))
            if len(beyond) and line in counted:
                first = beyond[np.argmax(np.abs(y[beyond]))]
                edge, marker = (high, "^") if y[first] > high else (low, "v")
                axes.plot(x[first], edge, marker, color=line.get_color(), markersize=4, clip_on=False)
                farthest = max(farthest, y[first], key=abs)
    where = f"values beyond the axis, up to {farthest:.3g}, mostly before the training has settled"
    return f"Triangles: {where}." if farthest else ""


def _late(line: Line2D) -> np.ndarray:
    """Which points of a curve come after its early part."""
    x = np.asarray(line.get_xdata(), float)
    return x > x[0] + EARLY * (x[-1] - x[0])


def by_hyperparameter(frame: pd.DataFrame, families: Sequence[str]) -> list[tuple[str, str]]:
    """Return variants of some families in the order of their hyper-parameter: (slug, its value as text), with
    the value used here in parentheses where that is another."""
    order = {slug: position for position, slug in enumerate(frames.catalogue())}
    named = []
    for row in frame[frame["family"].isin(families)].to_dict("records"):
        slug, applied = row["variant"], looks.applied(row)
        number = looks.NUMBER.search(slug)
        value = number[1] if number else looks.variant(slug, row.get("label", ""))
        words = f"{value} ({applied})" if applied else value
        named.append((float(number[1]) if number else np.inf, order.get(slug, len(order)), slug, words))
    return [(slug, words) for _, _, slug, words in sorted(named)]


def parameter_title(method: str, values: Iterable[str]) -> str:
    """Return a panel's title: the method, and below it the values of its hyper-parameter in their order."""
    return f"{method}\n{textwrap.fill(', '.join(values), 38)}"


#: What parentheses after a hyper-parameter mean.
APPLIED = "In parentheses: the value used here where it is not the paper's."
