# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # RLoss against flatness, epoch by epoch
#
# One panel per method, one point per snapshot after the first fifth of the training, early ones dark and
# late ones bright; in grey the baseline's trajectory. The last panel shows the baseline with worst-case
# flatness.
#
# The paper: a training that overfits moves up and to the right, into sharper minima. Methods that are more
# robust in the end stay flat. Label smoothing stays flat although its RLoss rises.

# %%
from matplotlib.cm import ScalarMappable

from robust_flatness.plotting import curves, inputs, looks, style
from robust_flatness.tables import aggregate, frames

notebook = inputs("flatness_by_epoch", globals().get("snakemake"))
series = notebook.ours.series
X, Y = "avg_flatness_rloss", "test_rloss_pgd"
WORST = ("worst_flatness_rloss_0.00075", "worst_flatness_rloss")
EPOCH_COLORS = "cividis"  # even in lightness, so that it reads without colour
# Printed trajectories on other data would set the scale; they are drawn from the printed numbers alone.
layers = notebook.layers if notebook.same_data else (notebook.ours,)


# %%
def late(layer, slug, x):
    """Snapshots after the first fifth of a training."""
    rows = curves.of(layer.series, slug, x, Y)
    return rows[rows[curves.EPOCH] > curves.EARLY]


def trajectory(axes, slug, x):
    """Draw a variant's trajectory, the baseline's in grey and the published one dashed."""
    if slug != "at":
        baseline = late(notebook.ours, "at", x)
        axes.plot(baseline[x], baseline[Y], color=style.LIGHT, linewidth=2.5, zorder=1)
    for layer in layers:
        rows = late(layer, slug, x)
        if layer.beside:
            axes.plot(rows[x], rows[Y], color=style.GREY, **style.PUBLISHED)
            continue
        axes.plot(rows[x], rows[Y], color="black", linewidth=0.4, zorder=3)
        look = {"cmap": EPOCH_COLORS, "vmin": 0, "vmax": 1, "edgecolors": "black", "linewidths": 0.25}
        axes.scatter(rows[x], rows[Y], c=rows[curves.EPOCH], s=13, zorder=4, **look)


def draw():
    slugs = [*dict.fromkeys(series.dropna(subset=[X, Y])["variant"])]
    order = [*frames.catalogue()]
    slugs.sort(key=lambda slug: order.index(slug) if slug in order else len(order))
    worst = [name for name in WORST if aggregate.has(series, name) and "at" in slugs][:1]
    shown = [(slug, X) for slug in slugs] + [("at", name) for name in worst]
    columns = min(5, len(shown))
    figure, panels = style.panels(len(shown), columns, height=1.4, sharey=True)
    for axes, (slug, x) in zip(panels, shown, strict=True):
        trajectory(axes, slug, x)
        axes.set_title(looks.variant(slug) + ", worst-case" * (x != X), fontsize=6)
        axes.tick_params(labelsize=6)
    style.name_bottom(
        [axes for axes, (_, x) in zip(panels, shown, strict=True) if x == X], columns, "flatness"
    )
    if worst:
        panels[-1].set_xlabel("worst-case flatness", fontsize=6.5)
    figure.supylabel("Test RLoss (lower is more robust)")
    colors = ScalarMappable(cmap=EPOCH_COLORS)
    figure.colorbar(colors, ax=panels, shrink=0.4, aspect=40, label="epoch (share of training)")
    text = "Flatness: average-case in RLoss, on an axis of its own in each panel (lower is flatter). "
    text += "The first fifth of each training is left out."
    style.legend(figure, curves.BASELINE | curves.published(panels), text)
    return figure


# %%
notebook.show(draw, notebook.missing(X, Y, table="series"))
