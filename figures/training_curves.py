# %% [markdown]
# # Training curves of the methods

# %%
from robust_flatness.plotting import curves, inputs, looks, style
from robust_flatness.plotting.curves import Curve
from robust_flatness.tables import printed

notebook = inputs("training_curves", globals().get("snakemake"))
tests = {slug: curves.training(notebook.ours, slug) for slug in printed.read_printed("headline")["variant"]}
tests = {slug: rows["test_rloss"].dropna() for slug, rows in tests.items() if "test_rloss" in rows}
slugs = sorted((slug for slug, rloss in tests.items() if len(rloss)), key=lambda slug: tests[slug].iloc[-1])


# %%
def draw():
    panels = {
        looks.variant(slug): [
            curves.BASELINE,
            Curve("train_rloss", style.TRAIN, "training examples", slug),
            Curve("test_rloss", style.TEST, "test examples", slug),
        ]
        for slug in slugs
    }
    y = "RLoss\n(lower is more robust)"
    return curves.figure(notebook, panels, together=True, mark=False, columns=5, height=1.35, y=y)


# %%
missing = notebook.missing("test_rloss", table="history")
what, remedy = "the methods of the headline table", "add them to the variants"
notebook.show(draw, "" if slugs else missing or notebook.missing_unless(slugs, what, remedy))
