"""The headline plot with a network of one's own in it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from robust_flatness.config.variants import BASELINE
from robust_flatness.files import atomic_path
from robust_flatness.measuring.place import Others, epsilon_of, shown
from robust_flatness.plotting import looks, scatter, style
from robust_flatness.plotting.labels import place_labels
from robust_flatness.plotting.layer import Layer
from robust_flatness.tables import aggregate

AXES = ("avg_flatness_rloss", "test_rloss_pgd")
#: Beyond so many times the others' span an axis is logarithmic.
FAR = 1.5
#: No family has it.
YELLOW = "#f0e442"
NOTE = (
    "Yellow cross: this network; bars: one standard error (of flatness over samples, of RLoss over "
    "examples). r: Pearson's, ρ: Spearman's correlation of the others."
)


def headline(result: Mapping[str, Any], others: Sequence[Others], label: str) -> Figure:
    """RLoss against average-case flatness of `others`, a panel each, with the network of `result` in them."""
    layers = [(group, Layer(group.name, group.tables)) for group in others]
    layers = [(group, layer) for group, layer in layers if aggregate.has(layer.counted, *AXES)]
    families = [name for _, layer in layers for name in layer.variants["family"]]
    apart = [name for _, layer in layers for name in layer.others["family"]]
    figure, grid = style.cells(1, len(layers), height=4.1)
    panels = []
    for column, (group, layer) in enumerate(layers):
        axes = figure.add_subplot(grid[0, column])
        options = {"words": len(layers) == 1, "title": _title(group, result), "near": False}
        scatter.panel(axes, layer, *AXES, layer.others, **options)
        everything = pd.concat([layer.counted, layer.others])[[*AXES]].dropna()
        _draw(axes, result["values"], everything)
        panels.append((axes, layer, everything))
    radii = f"ε = {shown(epsilon_of(result))}, ξ = {result['values']['avg_flatness_xi']:g}"
    title = f"{label} on {_readable(Path(result['data']).name)} ({radii}) among others"
    figure.suptitle(title, fontsize=8, x=0.01, ha="left")
    style.legend_below(figure, style.handles(families, apart), text=NOTE)
    mine = tuple(result["values"][name] for name in AXES)
    named = [look.named for look in looks.every().values()] if len(panels) == 1 else [BASELINE]
    for axes, layer, everything in panels:
        chosen = layer.counted[layer.counted["variant"].isin(named)].to_dict("records")
        points = [*everything.itertuples(index=False, name=None), mine]
        left = axes.transAxes.inverted().transform(axes.transData.transform(mine))[0] < 0.5
        own = axes.annotate(
            label, mine, (7 if left else -7, 7), textcoords="offset points", ha="left" if left else "right",
            fontsize=8, fontweight="bold", zorder=6,
        )  # fmt: skip
        place_labels(axes, [(row[AXES[0]], row[AXES[1]], looks.name(row)) for row in chosen], points, [own])
    return figure


def _readable(name: str) -> str:
    """A name from the command line; of a terminal without UTF-8 bytes, which no font has.

    >>> _readable("m\\udcc3\\udcb6del")
    'mödel'
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _title(group: Others, result: Mapping[str, Any]) -> str:
    unlike = group.unlike(result)
    name = group.name if group.epsilon is None else f"{group.name}, ε = {shown(group.epsilon)}"
    name = name if group.folder else f"{name[0].upper()}{name[1:]}"
    return name + (f"\nmeasured otherwise: {unlike}" if unlike else "")


def _draw(axes: Axes, values: Mapping[str, Any], others: pd.DataFrame) -> None:
    """The network, with its bars; axes reach to it, logarithmic where it lies far off."""
    ends = {}
    for name, key in zip(AXES, "xy", strict=True):
        error = values.get(f"{name}_se") or 0.0
        ends[key] = [*others[name], values[name] - error, values[name] + error]
        low, high = getattr(axes, f"get_{key}lim")()
        room = 0.07 * (max(high, values[name]) - min(low, values[name]))
        reach = min(low, values[name] - error - room), max(high, values[name] + error + room)
        axes.set(**{f"{key}lim": reach})
    for name, key in zip(AXES, "xy", strict=True):
        low, high = others[name].min(), others[name].max()
        if values[name] > high + FAR * (high - low) and min(ends[key]) > 0:
            ends_of_axis = np.min(ends[key]) / 1.3, np.max(ends[key]) * 1.3
            axes.set(**{f"{key}lim": ends_of_axis, f"{key}scale": "log"})
            axis = getattr(axes, f"{key}axis")
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_locator(NullLocator())
    bars = {f"{key}err": values.get(f"{name}_se") for name, key in zip(AXES, "xy", strict=True)}
    axes.errorbar(
        *(values[name] for name in AXES), **bars, fmt="X", markersize=9, color=YELLOW,
        markeredgecolor=style.BLACK, markeredgewidth=0.6, ecolor=style.BLACK, elinewidth=0.9, capsize=2,
        zorder=5,
    )  # fmt: skip


def draw(path: Path, result: Mapping[str, Any], others: Sequence[Others], label: str) -> None:
    """Write the picture; the suffix says in which form."""
    families = [looks.file(), *(group.folder / "families.yaml" for group in others if group.folder)]
    looks.use(*(file for file in families if file.exists()))
    figure = headline(result, others, _readable(label))
    style.freeze(figure)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:])
