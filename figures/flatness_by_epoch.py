# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # RLoss against flatness, epoch by epoch
#
# One panel per method, one point per snapshot, early epochs dark and late ones bright; in grey the
# baseline's trajectory. The last panel shows the baseline with worst-case flatness.
#
# Claim: a training that overfits wanders up and to the right, into sharper minima. Methods that are
# more robust in the end stay flat. Label smoothing stays flat although its RLoss rises.

# %%
import numpy as np
from matplotlib.cm import ScalarMappable

from robust_flatness.plotting import curves, inputs, looks, style
from robust_flatness.tables import aggregate, frames, schema

notebook = inputs("flatness_by_epoch", globals().get("snakemake"))
series = notebook.ours.series
X, Y = "avg_flatness_rloss", "test_rloss_pgd"
WORST = [
    name for name in ("worst_flatness_rloss_0.00075", "worst_flatness_rloss") if aggregate.has(series, name)
][:1]


# %%
def trajectory(axes, slug, x):
    """A variant's way through the plane, the baseline's in grey and the published one dashed."""
    if slug != "at":
        baseline = curves.of(series, "at", x, Y)
        axes.plot(baseline[x], baseline[Y], color=style.LIGHT, linewidth=2, zorder=1)
    for layer in notebook.layers:
        rows = curves.of(layer.series, slug, x, Y)
        if layer.beside:
            axes.plot(rows[x], rows[Y], **style.PUBLISHED, zorder=2)
            axes.plot(rows[x][-1:], rows[Y][-1:], "o", color=style.GREY, fillstyle="none", zorder=2)
            continue
        axes.plot(rows[x], rows[Y], color="black", linewidth=0.4, zorder=3)
        axes.scatter(
            *(rows[x], rows[Y]),
            c=rows[curves.EPOCH],
            **{"cmap": style.EPOCH_COLORS, "vmin": 0, "vmax": 1, "s": 13, "zorder": 4},
            **{"edgecolors": "black", "linewidths": 0.25},
        )


def late(slug, x, column):
    """A panel's values in a column, by the snapshots after the first fifth of each training."""
    rows = [curves.of(layer.series, slug, x, Y) for layer in notebook.layers]
    return np.concatenate([part.loc[part[curves.EPOCH] > curves.EARLY, column] for part in rows])


def limits(panels, column):
    """Limits of an axis that some panels (slug, x) share; of the horizontal one where `column` is None."""
    values = np.concatenate([late(slug, x, column or x) for slug, x in panels])
    margin = 0.08 * (values.max() - values.min())
    return values.min() - margin, values.max() + margin


def scales(shown):
    """The panels that share a horizontal axis, for each panel: worst-case flatness has its own, and so has
    a variant that would press all others together."""
    reach = {panel: np.max(late(*panel, panel[1])) for panel in shown}
    usual = 3 * abs(np.quantile([reach[panel] for panel in shown if panel[1] == X], 0.75))
    together = [panel for panel in shown if panel[1] == X and reach[panel] <= usual]
    return {panel: together if panel in together else [panel] for panel in shown}


def draw():
    slugs = [*dict.fromkeys(series.dropna(subset=[X, Y])["variant"])]
    order = [*frames.catalogue()]
    slugs.sort(key=lambda slug: order.index(slug) if slug in order else len(order))
    shown = [(slug, X) for slug in slugs] + [("at", name) for name in WORST if "at" in slugs]
    rows = -(-len(shown) // 5)
    columns = -(-len(shown) // rows)
    beside = scales(shown)
    figure, panels = style.grid(rows, columns, below=0.12, between=0.12, right=0.6, bottom=0.85, sharey=True)
    for index, (axes, (slug, x)) in enumerate(zip(panels, shown, strict=False)):
        trajectory(axes, slug, x)
        own = x == X and len(beside[slug, x]) == 1 < len(shown)
        axes.set_title(looks.variant(slug) + ", worst-case" * (x != X), fontsize=6)
        if own:
            axes.set_xlabel("wider axis", fontsize=5, labelpad=1, loc="right")
        axes.tick_params(labelsize=6)
        axes.set_xlim(*limits(beside[slug, x], None))
        axes.set_ylim(*limits(shown, Y))
        if x != X:
            axes.set_xlabel(schema.describe(x).replace(" in RLoss", ""), fontsize=5, labelpad=1, loc="right")
        elif index + columns < len(shown) and beside[shown[index + columns]] == beside[slug, x]:
            axes.tick_params(labelbottom=False)
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    colors = ScalarMappable(cmap=style.EPOCH_COLORS)
    bar = figure.colorbar(colors, cax=figure.add_axes((0.925, 0.35, 0.012, 0.4)))
    bar.set_label("epoch (share)", fontsize=7)
    note = "Grey: the AT baseline. " * ("at" in slugs)
    note += "One scale, set by what follows the first fifth of each training. "
    note += notebook.beside(
        "Dashed, ending in a circle: published, CIFAR-10", "compare the course, not the values"
    )
    words = f"Average-case flatness in RLoss (lower is flatter)\n{note}"
    style.name_grid(figure, words, "Test RLoss (lower is more robust)", bottom=0.85)
    return figure


# %%
notebook.show(draw, notebook.missing(X, Y, table="series"))
