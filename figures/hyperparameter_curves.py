# %% [markdown]
# # Training curves over hyper-parameters

# %%
import seaborn

from robust_flatness.plotting import curves, inputs
from robust_flatness.plotting.curves import Curve
from robust_flatness.tables import aggregate

notebook = inputs("hyperparameter_curves", globals().get("snakemake"))
ours = notebook.ours
drawn = [
    slug for slug in ours.variants["variant"] if aggregate.has(curves.training(ours, slug), "test_rloss")
]
trained = ours.variants[ours.variants["variant"].isin(drawn)]
methods = curves.by_hyperparameter(trained)


# %%
def draw():
    panels = {}
    for title, slugs in methods.items():
        colors = seaborn.color_palette("viridis_r", len(slugs))
        lines = [Curve("test_rloss", color, "", slug, 1) for color, slug in zip(colors, slugs, strict=True)]
        panels[title] = [curves.BASELINE, *lines]
    note = "Light to dark: in the order of the values above each panel, which are those used here."
    look = {"columns": 4, "height": 1.5, "y": "Test RLoss\n(lower is more robust)"}
    return curves.figure(notebook, panels, note, layers=[ours], together=True, mark=False, **look)


# %%
what = "training curves of variants that differ in a hyper-parameter"
notebook.show(draw, notebook.missing_unless(methods, what, "run an experiment with them"))
