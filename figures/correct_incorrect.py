# %% [markdown]
# # Correctly and incorrectly classified examples

# %%
from robust_flatness.plotting import curves, inputs, looks, style
from robust_flatness.plotting.curves import Curve
from robust_flatness.tables import aggregate

notebook = inputs("correct_incorrect", globals().get("snakemake"))
SLUGS = ("at", "mart-6", "ignore-incorrect", "prevent-label-leaking")
COLUMNS = {
    "test_incorrect_rloss": (style.PURPLE, "classified incorrectly when clean"),
    "test_rloss": (style.TEST, "all test examples"),
    "test_correct_rloss": (style.ORANGE, "classified correctly when clean"),
}
slugs = [slug for slug in SLUGS if aggregate.has(curves.training(notebook.ours, slug), *COLUMNS)]


# %%
def draw():
    panels = {
        looks.variant(slug): [Curve(column, *look, slug) for column, look in COLUMNS.items()]
        for slug in slugs
    }
    y = "Test RLoss (lower is more robust)"
    return curves.figure(notebook, panels, layers=[notebook.ours], together=True, height=2.3, y=y)


# %%
missing = notebook.missing("test_correct_rloss", "test_incorrect_rloss", table="history")
what, remedy = "these variants' training curves", "add them to the variants"
notebook.show(draw, missing or notebook.missing_unless(slugs, what, remedy))
