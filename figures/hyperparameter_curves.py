# %% [markdown]
# # Training curves over hyper-parameters

# %%
import matplotlib

from robust_flatness.plotting import curves, inputs, looks
from robust_flatness.plotting.curves import Curve
from robust_flatness.tables import aggregate

notebook = inputs("hyperparameter_curves", globals().get("snakemake"))
ours = notebook.ours
drawn = [
    slug for slug in ours.variants["variant"] if aggregate.has(curves.training(ours, slug), "test_rloss")
]
trained = ours.variants[ours.variants["variant"].isin(drawn)]
orders = {name: curves.by_hyperparameter(trained, families) for name, families in looks.methods().items()}
methods = {name: order for name, order in orders.items() if order}


# %%
def draw():
    panels = {}
    for name, order in methods.items():
        shades = [0.15 + 0.8 * index / max(1, len(order) - 1) for index in range(len(order))]
        colors = map(matplotlib.colormaps["viridis_r"], shades)
        lines = [Curve("test_rloss", color, "", slug, 1) for color, slug in zip(colors, order, strict=True)]
        panels[f"{name}\n{', '.join(order.values())}"] = [curves.BASELINE, *lines]
    note = "Light to dark: in the order of the values above each panel, which are those used here."
    look = {"columns": 4, "height": 1.5, "y": "Test RLoss\n(lower is more robust)"}
    return curves.figure(notebook, panels, note, layers=[ours], together=True, mark=False, **look)


# %%
what = "training curves of variants that differ in a hyper-parameter"
notebook.show(draw, notebook.missing_unless(methods, what, "run an experiment with them"))
