# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Training curves over hyper-parameters
#
# Test RLoss over epochs, a panel per method: light to dark in the order of the hyper-parameter, whose
# values stand above the panel; the baseline in grey.

# %%
import matplotlib

from robust_flatness.plotting import curves, inputs, looks, style

notebook = inputs("hyperparameter_curves", globals().get("snakemake"))
variants = notebook.ours.variants
drawn = [slug for slug in variants["variant"] if len(curves.test_curve(notebook.ours, slug))]
trained = variants[variants["variant"].isin(drawn)]
orders = {name: curves.by_hyperparameter(trained, families) for name, families in looks.methods().items()}
methods = {name: order for name, order in orders.items() if order}


# %%
def draw():
    columns = min(4, len(methods))
    figure, panels = style.panels(len(methods), columns, height=1.6, sharex=True, sharey=True)
    baseline = curves.test_curve(notebook.ours, "at")
    for axes, (name, order) in zip(panels, methods.items(), strict=True):
        curves.draw(axes, notebook.ours, baseline, "test_rloss", style.LIGHT, linewidth=2.5)
        for index, slug in enumerate(order):
            color = matplotlib.colormaps["viridis_r"](0.15 + 0.8 * index / max(1, len(order) - 1))
            for layer in notebook.layers:
                rows = curves.test_curve(layer, slug)
                curves.draw(axes, layer, rows, "test_rloss", color, linewidth=1)
        axes.set_title(curves.parameter_title(name, order.values()), fontsize=6)
    style.name_bottom(panels, columns, curves.EPOCH_NAME)
    figure.supylabel("Test RLoss (lower is more robust)")
    style.legend(
        figure,
        curves.BASELINE | curves.published(panels),
        "Light to dark: in the order of the values above each panel.",
        curves.scale(panels, together=True),
        curves.APPLIED * any("(" in value for order in methods.values() for value in order.values()),
    )
    return figure


# %%
what = "training curves of variants that differ in a hyper-parameter"
notebook.show(draw, notebook.missing_unless(methods, what, "run an experiment with them"))
