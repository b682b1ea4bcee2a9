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

from robust_flatness.plotting import curves, inputs, looks, style

notebook = inputs("hyperparameter_curves", globals().get("snakemake"))
variants = notebook.ours.variants
drawn = [slug for slug in variants["variant"] if len(curves.test_curve(notebook.ours, slug))]
trained = variants[variants["variant"].isin(drawn)]
methods = {
    name: curves.by_hyperparameter(trained, families)
    for name, families in looks.methods().items()
    if trained["family"].isin(families).any()
}


# %%
def method(axes, order):
    """The method's curves; those that cannot be told apart are drawn once."""
    found = {slug: curves.test_curve(notebook.ours, slug) for slug, _ in order}
    xy = {
        slug: (rows[curves.EPOCH].to_numpy(), rows["test_rloss"].to_numpy()) for slug, rows in found.items()
    }
    groups, values = curves.coinciding(xy, tolerance=0.05), dict(order)
    shades = matplotlib.colormaps["viridis_r"](
        [0.15 + 0.8 * i / max(1, len(order) - 1) for i in range(len(order))]
    )
    colors = dict(zip(values, shades, strict=True))
    for first, group in groups.items():
        label = curves.span([values[slug] for slug in group])
        for layer in notebook.layers:
            for slug in group if layer.beside else [first]:
                rows = curves.test_curve(layer, slug)
                curves.draw(axes, layer, rows, "test_rloss", color=colors[slug], label=label, linewidth=1)


def draw():
    columns = min(4, max(2, len(methods)))
    rows = -(-len(methods) // columns)
    figure, panels = style.grid(rows, columns, height=1.25, bottom=0.7, sharex=True, sharey=True)
    baseline = curves.test_curve(notebook.ours, "at")
    for axes, (name, order) in zip(panels, methods.items(), strict=False):
        curves.draw(axes, notebook.ours, baseline, "test_rloss", color=style.LIGHT, linewidth=2)
        method(axes, order)
        axes.set_title(name, fontsize=7)
    for axes in panels[len(methods) :]:
        axes.set_axis_off()
    used = panels[: len(methods)]
    beyond = curves.scale(used, together=True, room=0.3, logarithmic=True)
    legend = {"handlelength": 0.8, "labelspacing": 0.1, "borderaxespad": 0.1, "columnspacing": 0.6}
    for axes in used:
        longest = max(map(len, axes.get_legend_handles_labels()[1]), default=0)
        axes.legend(fontsize=5, loc="upper right", ncols=1 if longest > 14 else 2, **legend)
    applied = any("(" in value for order in methods.values() for _, value in order)
    dashed = notebook.beside("Dashed: published, CIFAR-10, of variants in the paper's figures")
    notes = ["Grey: the AT baseline.", curves.APPLIED * applied, curves.BEYOND * beyond, dashed]
    words = "Epoch (share of training)\n" + " ".join(filter(None, notes))
    style.name_grid(figure, words, "Test RLoss (lower is more robust)", bottom=0.7)
    return figure


# %%
lacking = notebook.say_missing(
    "training curves of variants that differ in a hyper-parameter", "run an experiment with them"
)
notebook.show(draw, "" if methods else lacking)
