"""Pictures of a user's network: headline plot, planes, density."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robust_flatness.errors import ConfigError
from robust_flatness.plotting import density, looks, planes, scatter, style
from robust_flatness.plotting.layer import Layer
from robust_flatness.run.place import ModelGroup, radius_of
from robust_flatness.tables import aggregate

AXES = X, Y = "avg_flatness_rloss", "test_rloss_pgd"
#: Colour of the network: no family has it.
YELLOW = "#f0e442"
NOTE = (
    "Yellow cross: this network; bars: one standard error (of flatness over samples, of RLoss over "
    "examples). r: Pearson, ρ: Spearman correlation of the others, with 95 % bootstrap confidence intervals."
)


def headline(result: Mapping[str, Any], others: Sequence[ModelGroup], label: str) -> Figure:
    """Draw RLoss against average-case flatness of `others`, a panel each, with the network of `result`."""

    def draw(axes: Axes, layer: Layer, title: str) -> list[style.Label]:
        labels = scatter.panel(axes, layer, *AXES, title, headline=True)
        _draw(axes, result["values"], label)
        return labels

    cells = []
    for group in others:
        layer = Layer(group.name, group.tables, printed=group.folder is None)
        if aggregate.has(layer.counted, *AXES):
            cells.append(partial(draw, layer=layer, title=_title(group, result)))
    radii = f"ε = {radius_of(result)}, ξ = {result['values']['avg_flatness_xi']:g}"
    title = f"{label} on {Path(result['data']).name} ({radii}) among others"
    return scatter.figure(cells, NOTE, height=3.3, title=title)


def _title(group: ModelGroup, result: Mapping[str, Any]) -> str:
    differences = group.differences(result)
    name = f"{group.name}, ε = {group.radius}" if group.radius else group.name
    name = name if group.folder else f"{name[0].upper()}{name[1:]}"
    return name + (f"\nmeasured otherwise: {differences}" if differences else "")


def _draw(axes: Axes, values: Mapping[str, Any], label: str) -> None:
    """Draw the network with its bars and its name, the axes extended to it."""
    errors = {name: values.get(f"{name}_se") or 0.0 for name in AXES}
    for name, get, put in ((X, axes.get_xlim, axes.set_xlim), (Y, axes.get_ylim, axes.set_ylim)):
        low, high = get()
        room = errors[name] + 0.07 * (max(high, values[name]) - min(low, values[name]))
        put(min(low, values[name] - room), max(high, values[name] + room))
    axes.errorbar(
        values[X], values[Y], xerr=errors[X], yerr=errors[Y], fmt="X", markersize=9, color=YELLOW,
        markeredgecolor=style.BLACK, markeredgewidth=0.6, ecolor=style.BLACK, elinewidth=0.9, capsize=2,
        zorder=5,
    )  # fmt: skip
    left = values[X] < sum(axes.get_xlim()) / 2
    axes.annotate(
        label, (values[X], values[Y]), (7 if left else -7, 7), textcoords="offset points",
        ha="left" if left else "right", fontsize=8, fontweight="bold", zorder=6,
    )  # fmt: skip


def draw(path: Path, result: Mapping[str, Any], others: Sequence[ModelGroup], label: str) -> None:
    """Write the picture in the format of the path's suffix: of the plane, else of the density, else of
    flatness, which must be finite, else `ConfigError`."""
    looks.use(*(group.folder / "families.yaml" for group in others if group.folder))
    if "plane" in result["settings"]:
        name = ", ".join(filter(None, (label, result["notes"].get("loss"))))
        figure = planes.figure({name: pd.DataFrame(result["records"])})
    elif "density" in result["settings"]:
        records = pd.DataFrame(result["records"]).assign(variant=label)
        figure = density.densities(records, {label: {"label": label, "color": style.BLACK}})
    elif all(math.isfinite(result["values"].get(name, math.nan)) for name in AXES):
        figure = headline(result, others, label)
    else:
        raise ConfigError(f"{path}: not drawn, since RLoss or flatness of {label} is not finite")
    style.save(figure, path, {})
