"""The headline plot with a user's network in it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robust_flatness.files import atomic_path
from robust_flatness.plotting import density, looks, scatter, style
from robust_flatness.plotting.layer import Layer
from robust_flatness.run.place import ModelGroup, epsilon_of, fraction
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
    layers = [(group, Layer(group.name, group.tables)) for group in others]
    layers = [(group, layer) for group, layer in layers if aggregate.has(layer.counted, *AXES)]
    families = [name for _, layer in layers for name in layer.variants["family"]]
    hollow = [name for _, layer in layers for name in layer.others["family"]]
    figure, axes = style.panels(len(layers), height=3.3, room=1.1)
    beyond = [
        scatter.panel(panel, layer, layer.others, *AXES, _title(group, result), len(layers))
        for panel, (group, layer) in zip(axes, layers, strict=True)
    ]
    radii = f"ε = {fraction(epsilon_of(result))}, ξ = {result['values']['avg_flatness_xi']:g}"
    title = f"{label} on {Path(result['data']).name} ({radii}) among others"
    figure.suptitle(title, fontsize=8, x=0.01, ha="left")
    style.legend(figure, style.handles(families, hollow), NOTE)
    for panel, (_, layer), labels in zip(axes, layers, beyond, strict=True):
        _draw(panel, result["values"], label)
        named = layer.counted[layer.counted["variant"].isin(looks.named())].to_dict("records")
        style.place_labels(panel, [*labels, *((row[X], row[Y], looks.name(row)) for row in named)])
    return figure


def _title(group: ModelGroup, result: Mapping[str, Any]) -> str:
    differences = group.differences(result)
    name = group.name if group.epsilon is None else f"{group.name}, ε = {fraction(group.epsilon)}"
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


def spectrum(result: Mapping[str, Any], label: str) -> Figure:
    """Draw the density of the Hessian's eigenvalues."""
    rows = density.records_of(pd.DataFrame(result["records"]).assign(variant=label))
    return density.densities(rows, {label: {"label": label, "color": style.BLACK}})


def draw(path: Path, result: Mapping[str, Any], others: Sequence[ModelGroup], label: str) -> None:
    """Write the picture in the format of the path's suffix: of flatness, or without it of the density."""
    families = [looks.file(), *(group.folder / "families.yaml" for group in others if group.folder)]
    looks.use(*(file for file in families if file.exists()))
    alone = "density" in result["settings"] and "flatness" not in result["settings"]
    figure = spectrum(result, label) if alone else headline(result, others, label)
    style.freeze(figure)
    undated = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], metadata=undated.get(path.suffix))
