# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Training curves over hyper-parameters
#
# Test RLoss over epochs, a panel per method: light to dark in the order of the hyper-parameter, the
# baseline in grey.

# %%
import matplotlib
from matplotlib.ticker import LogLocator, NullLocator

from robust_flatness.plotting import curves, inputs, looks, style

notebook = inputs("hyperparameter_curves", globals().get("snakemake"))


def test_curve(source, slug):
    """Test RLoss over epochs, ours or published."""
    return curves.test_curve(source.history, source.series, slug)


# %%
def draw(methods):
    columns = min(4, max(2, len(methods)))
    rows = -(-len(methods) // columns)
    figure, panels = style.grid(rows, columns, sharex=True, sharey=True)
    if not notebook.is_paper:  # printed curves begin late; the first epochs of high rates go far beyond
        panels[0].set_yscale("log")
        panels[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=6))
        panels[0].yaxis.set_major_formatter("{x:g}")
        panels[0].yaxis.set_minor_locator(NullLocator())
    for axes, (name, order) in zip(panels, methods.items(), strict=False):
        curves.draw(axes, test_curve(notebook, "at"), "test_rloss", color=style.LIGHT, linewidth=2)
        shades = matplotlib.colormaps["viridis_r"](
            [0.15 + 0.8 * i / max(1, len(order) - 1) for i in range(len(order))]
        )
        for (slug, value), color in zip(order, shades, strict=True):
            curves.draw(axes, test_curve(notebook, slug), "test_rloss", color=color, label=value, linewidth=1)
            if not notebook.is_paper:
                printed = test_curve(notebook.published, slug)
                curves.draw(axes, printed, "test_rloss", **{**style.PUBLISHED, "color": color})
        axes.set_title(name, fontsize=7)
        axes.legend(fontsize=5, loc="upper left", handlelength=0.8, labelspacing=0.1, borderaxespad=0.1)
    for axes in panels[len(methods) :]:
        axes.set_axis_off()
    note = "Epoch (share of training)\nGrey: the AT baseline."
    note += "" if notebook.is_paper else " Dashed: published, CIFAR-10, of variants in the paper's figures."
    style.name_grid(figure, note, "Test RLoss (lower is more robust)")
    return figure


# %%
drawn = [slug for slug in notebook.variants["variant"] if len(test_curve(notebook, slug))]
trained = notebook.variants[notebook.variants["variant"].isin(drawn)]
methods = {
    name: curves.by_hyperparameter(trained, families)
    for name, families in looks.methods().items()
    if trained["family"].isin(families).any()
}
lacking = "Missing: training curves of variants that differ in a hyper-parameter.\n"
remedy = "To get it: run an experiment with them, snakemake --cores all."
notebook.save(draw(methods) if methods else style.missing_page("Hyper-parameter curves", lacking + remedy))
