# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Robust error against robust loss
#
# RLoss is unbounded, RErr is not. At RLoss of ln K the attacked network does as badly as a uniform guess
# among K classes; a loss above it means confident mistakes.
#
# The paper: RErr against RLoss bends there; above it, a lower RLoss hardly lowers RErr. Two linear fits are
# split at that value. Since any concave cloud gives such slopes, a hinge with a free break is fitted too.

# %%
from robust_flatness.analysis.hinge import fitted, kink
from robust_flatness.plotting import inputs, scatter, style
from robust_flatness.tables import aggregate

notebook = inputs("rerr_vs_rloss", globals().get("snakemake"))
X = "test_rloss_pgd"
rerr = {layer: aggregate.robust_error_column(layer.models) for layer in notebook.layers}
extra = {layer: layer.hollow(robustbench=True) for layer in notebook.layers}


# %%
def bent(axes, layer):
    """Draw the points, the bend and a fit on each side of it; returns labels of points beyond the axes."""
    y, bend = rerr[layer], kink(layer.counted)
    rows = layer.counted.dropna(subset=[X, y])
    axes.axvline(bend, color="black", linewidth=0.8, linestyle=":")
    slopes = [scatter.trend(axes, side, X, y) for side in (rows[rows[X] < bend], rows[rows[X] >= bend])]
    below, above = ("-" if slope is None else f"{slope:z.1f}" for slope in slopes)
    lines = [layer.title()] if notebook.printed else []
    lines += [f"slope {below} below, {above} above ln K = {bend:.2f} (dotted)"]
    hinge = fitted(rows, y)
    if hinge is not None:
        at, (low, high) = hinge.at.value, hinge.at.interval
        axes.axvspan(low, high, color="#ececec", linewidth=0, zorder=0)
        lines.append(f"break of a fitted hinge: {at:.1f}, 95 % interval {low:.1f} to {high:.1f} (grey)")
    labels = scatter.cloud(axes, layer, extra[layer], X, y)
    scatter.name_axes(axes, X, y)
    _, words = scatter.correlations(rows, X, y)
    axes.set_title("\n".join([*lines, ", ".join(words)]))
    return labels


def draw():
    figure, panels = style.panels(len(notebook.layers), height=3.1, room=1.1)
    labels = [bent(axes, layer) for axes, layer in zip(panels, notebook.layers, strict=True)]
    families = [name for layer in notebook.layers for name in layer.variants["family"]]
    hollow = [name for frame in extra.values() for name in frame["family"]]
    style.legend(figure, style.handles(families, hollow), scatter.notes(notebook, X))
    for axes, layer, beyond in zip(panels, notebook.layers, labels, strict=True):
        scatter.label_points(axes, layer, X, rerr[layer], beyond)
    return figure


# %%
notebook.show(draw, notebook.missing(X, rerr[notebook.ours]))
