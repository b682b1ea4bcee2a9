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
from matplotlib.cm import ScalarMappable

from robust_flatness import tables as results
from robust_flatness.plotting import curves, inputs, looks, style

notebook = inputs("flatness_by_epoch", globals().get("snakemake"))
series, published = notebook.series, notebook.published.series
X, Y = "avg_flatness_rloss", "test_rloss_pgd"
WORST = [
    name for name in ("worst_flatness_rloss_0.00075", "worst_flatness_rloss") if results.has(series, name)
][:1]


# %%
def trajectory(axes, slug, x):
    """A variant's way through the plane, the baseline's in grey and the published one dashed."""
    if slug != "at":
        baseline = curves.of(series, "at", x, Y)
        axes.plot(baseline[x], baseline[Y], color=style.LIGHT, linewidth=2, zorder=1)
    if not notebook.is_paper:
        printed = curves.of(published, slug, x, Y)
        axes.plot(printed[x], printed[Y], **style.PUBLISHED, zorder=2)
        axes.plot(printed[x][-1:], printed[Y][-1:], "o", color=style.GREY, fillstyle="none", zorder=2)
    rows = curves.of(series, slug, x, Y)
    axes.plot(rows[x], rows[Y], color="black", linewidth=0.4, zorder=3)
    axes.scatter(
        *(rows[x], rows[Y]),
        c=rows[curves.EPOCH],
        **{"cmap": style.EPOCH_COLORS, "vmin": 0, "vmax": 1, "s": 13, "zorder": 4},
        **{"edgecolors": "black", "linewidths": 0.25},
    )


def draw():
    slugs = [*dict.fromkeys(series.dropna(subset=[X, Y])["variant"])]
    slugs.sort(key=lambda slug: [*results.catalogue()].index(slug) if slug in results.catalogue() else 99)
    shown = [(slug, X) for slug in slugs] + [("at", name) for name in WORST if "at" in slugs]
    columns = min(6, len(shown))
    rows = -(-len(shown) // columns)
    figure, panels = style.grid(rows, columns, below=0.22, between=0.3, right=0.6)
    for axes, (slug, x) in zip(panels, shown, strict=False):
        trajectory(axes, slug, x)
        label = looks.variant(slug)
        axes.set_title(label if x == X else f"{label}, worst-case", fontsize=6)
        axes.tick_params(labelsize=6)
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    colors = ScalarMappable(cmap=style.EPOCH_COLORS)
    bar = figure.colorbar(colors, cax=figure.add_axes((0.925, 0.35, 0.012, 0.4)))
    bar.set_label("epoch (share)", fontsize=7)
    note = "Grey: the AT baseline."
    if not notebook.is_paper:
        note += " Dashed, ending in a circle: published, CIFAR-10"
        note += "." if notebook.same_data else "; compare the course, not the values."
    words = f"Average-case flatness in RLoss (lower is flatter)\n{note}"
    style.name_grid(figure, words, "Test RLoss (lower is more robust)")
    return figure


# %%
missing = notebook.missing(X, Y, table="series")
notebook.save(style.missing_page("RLoss against flatness by epoch", missing) if missing else draw())
