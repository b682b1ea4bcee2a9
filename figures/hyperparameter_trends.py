# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Hyper-parameters, method by method
#
# RLoss against average-case flatness within each method: its variants in the order of the
# hyper-parameter, with a linear fit, over all other variants in grey.
#
# Claim: whatever makes a method more robust also makes it flatter. Weight clipping is the exception: it
# goes with worst-case flatness.

# %%
import numpy as np
import pandas as pd

from robust_flatness.analysis.lines import fit_line
from robust_flatness.plotting import curves, inputs, looks, scatter, style
from robust_flatness.plotting.labels import place_labels

notebook = inputs("hyperparameter_trends", globals().get("snakemake"))
X, Y = "avg_flatness_rloss", "test_rloss_pgd"
learnt = notebook.ours.learnt
rows = learnt.dropna(subset=[X, Y]) if {X, Y} <= set(learnt) else learnt.iloc[:0]
methods = {
    name: families for name, families in looks.methods().items() if rows["family"].isin(families).any()
}


# %%
def method(axes, layer, families):
    """The method's variants, with a line in the order of the hyper-parameter; returns their labels,
    those of points at the same place as one."""
    frame = layer.learnt.dropna(subset=[X, Y])
    order = curves.by_hyperparameter(frame, families)
    points = frame.set_index("variant").loc[[slug for slug, _ in order], [X, Y]]
    line = fit_line(points[X], points[Y]) if len(points) > 2 else None
    if line is not None:
        width, dashes = (0.7, (0, (4, 1.5))) if layer.beside else (1.6, "-")
        look = {"color": looks.color(families[0]), "linewidth": width, "linestyle": dashes}
        axes.plot(line.x, line.y, **look, alpha=0.6, zorder=2)
    size = 10 if layer.beside else 20
    scatter.points(axes, frame[frame["family"].isin(families)], X, Y, layer.beside, size)
    named: list[tuple[np.ndarray, list[str]]] = []
    for point, (_, value) in zip(points.to_numpy(), order, strict=True):
        near = [names for other, names in named if np.allclose(point, other, rtol=0.01)]
        if near:
            near[0].append(value)
        else:
            named.append((point, [value]))
    return [(*point, curves.span(names)) for point, names in named]


def extent(near):
    """From the lowest to the highest of the values `near`, and the printed ones, with some room."""
    printed = [notebook.printed.learnt[X]] if notebook.printed else []
    values = pd.concat([rows.loc[near, X], *printed])
    room = 0.05 * (values.max() - values.min())
    return values.min() - room, values.max() + room


def draw():
    columns = min(4, max(2, len(methods)))
    lines = -(-len(methods) // columns)
    near = scatter.near(rows[X])
    apart = {name for name, own in methods.items() if rows.loc[~near, "family"].isin(own).any()}
    figure, panels = style.grid(lines, columns, height=1.3, bottom=0.7, sharex=not apart, sharey=True)
    labels = []
    for axes, (name, families) in zip(panels, methods.items(), strict=False):
        axes.scatter(rows[X], rows[Y], s=5, color=style.LIGHT, linewidths=0, zorder=1)
        scatter.points(axes, rows[rows["family"] == "at"], X, Y, size=16)
        labels.append(method(axes, notebook.ours, families))
        if notebook.printed:
            method(axes, notebook.printed, families)
        axes.set_title(f"{name} (own axis)" if name in apart else name, fontsize=7)
        if apart:
            axes.label_outer()
            axes.tick_params(labelbottom=name in apart or axes.get_subplotspec().is_last_row())
            if name not in apart:
                axes.set_xlim(*extent(near))
    for axes in panels[len(methods) :]:
        axes.set_axis_off()
    note = "Average-case flatness in RLoss (lower is flatter)\nStar: the AT baseline. "
    note += notebook.beside("Hollow, dashed: published, CIFAR-10", "compare directions, not values")
    if any("(" in value for named in labels for _, _, value in named):
        note += f" {curves.APPLIED}"
    style.name_grid(figure, note, "Test RLoss (lower is more robust)", bottom=0.7)
    for axes, named in zip(panels, labels, strict=False):
        place_labels(axes, named, rows.loc[rows["family"] == "at", [X, Y]].to_numpy(), fontsize=5.5, reach=31)
    return figure


# %%
missing = notebook.missing(X, Y)
if not methods:
    missing = missing or notebook.say_missing(
        "variants that differ in a hyper-parameter", "add them to the experiment's variants"
    )
notebook.show(draw, missing)
