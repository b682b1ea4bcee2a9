# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Hyper-parameters, method by method
#
# RLoss against average-case flatness within each method: its variants are joined in the order of the hyper-
# parameter, whose values stand above the panel; larger markers have larger values. All other variants are
# grey.
#
# The paper: whatever makes a method more robust also makes it flatter. Weight clipping is the exception: it
# goes with worst-case flatness.

# %%
from robust_flatness.plotting import curves, inputs, looks, scatter, style

notebook = inputs("hyperparameter_trends", globals().get("snakemake"))
X, Y = "avg_flatness_rloss", "test_rloss_pgd"
learnt = {layer: layer.variants[layer.variants["learnt"]] for layer in notebook.layers}
ours = learnt[notebook.ours]
rows = ours.dropna(subset=[X, Y]) if {X, Y} <= {*ours} else ours.iloc[:0]
families = set(rows["family"])
methods = {name: names for name, names in looks.methods().items() if families & set(names)}


# %%
def method(axes, layer, names):
    """Draw the method's variants, joined in the order of the hyper-parameter; returns its values."""
    frame = learnt[layer].dropna(subset=[X, Y])
    order = curves.by_hyperparameter(frame, names)
    chosen = frame.set_index("variant", drop=False).loc[[*order]]
    width, style_of_line = (0.6, "--") if layer.beside else (1, "-")
    axes.plot(
        chosen[X], chosen[Y], style_of_line, color=looks.family(names[0]).color, linewidth=width, zorder=2
    )
    for index in range(len(chosen)):
        size = (8 if layer.beside else 10) * (1 + 3 * index / max(1, len(chosen) - 1))
        scatter.points(axes, chosen.iloc[[index]], X, Y, layer.beside, size)
    return order.values()


def draw():
    columns = min(4, len(methods))
    figure, panels = style.panels(len(methods), columns, height=1.65, sharex=True, sharey=True)
    applied = False
    for axes, (name, names) in zip(panels, methods.items(), strict=True):
        axes.scatter(rows[X], rows[Y], s=5, color=style.LIGHT, linewidths=0, zorder=1)
        scatter.points(axes, rows[rows["family"] == "at"], X, Y, size=16)
        if notebook.printed:
            method(axes, notebook.printed, names)
        values = method(axes, notebook.ours, names)
        applied |= "(" in "".join(values)
        axes.set_title(curves.parameter_title(name, values), fontsize=6)
    theirs = [learnt[layer][X].max() for layer in notebook.layers[1:]]
    panels[0].set_xlim(right=1.05 * max([rows.loc[style.near(rows[X]), X].max(), *theirs]))
    style.name_bottom(panels, columns, "Average-case flatness\n(lower is flatter)")
    figure.supylabel("Test RLoss (lower is more robust)")
    beyond = rows[~style.near(rows[X])].to_dict("records")
    beyond = ", ".join(f"{looks.name(row)} {row[X]:.3g}" for row in beyond)
    style.legend(
        figure,
        style.handles(["at"]),
        "Joined in the order of the values above each panel; larger markers: larger values.",
        notebook.beside("Hollow, dashed: published, CIFAR-10", "compare directions, not values"),
        f"Beyond the axis: {beyond}." * bool(beyond),
        curves.APPLIED * applied,
    )
    return figure


# %%
what, remedy = "variants that differ in a hyper-parameter", "add them to the experiment's variants"
notebook.show(draw, notebook.missing(X, Y) or notebook.missing_unless(methods, what, remedy))
