# %% [markdown]
# # Losses and flatness of all variants

# %%
from robust_flatness.plotting import inputs, typeset
from robust_flatness.tables import schema

notebook = inputs("losses", globals().get("snakemake"))

# %%
FLATNESS = ("avg_flatness_ce", "avg_flatness_rloss", "worst_flatness_ce", "worst_flatness_rloss")
measures = [*schema.LOSSES, "best_test_rloss_pgd", *FLATNESS]
frame = typeset.variants(notebook, [*measures, "avg_flatness_rloss_se"])
frame = frame.sort_values("test_rloss_pgd", kind="stable").dropna(axis="columns", how="all")

# %%
HEADINGS = {
    **{"test_ce": ("CE test", 2), "test_rloss_pgd": ("RLoss test", 2), "train_ce": ("CE train", 2)},
    **{"train_rloss_pgd": ("RLoss train", 2), "best_test_rloss_pgd": ("RLoss early-stopped", 2)},
    "avg_flatness_rloss": ("Average-case flatness", 2),
    "worst_flatness_rloss": ("Worst-case flatness", 2),
    **{"avg_flatness_ce": ("Average-case, CE", 2), "worst_flatness_ce": ("Worst-case, CE", 2)},
}
PAIRED = ("test_rloss_pgd", "avg_flatness_rloss")
columns = {"label": "Method", **typeset.compared(HEADINGS, only=PAIRED)}
note = "By increasing RLoss. RLoss by PGD; every published column is in the CSV."
title = f"Losses and flatness of all variants ({notebook.experiment})"
notebook.write(typeset.texts(frame, columns, title, typeset.notes(notebook, note)))
