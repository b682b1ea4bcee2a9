# %% [markdown]
# # Errors of all variants

# %%
from robust_flatness.plotting import inputs, typeset
from robust_flatness.tables import aggregate

notebook = inputs("errors", globals().get("snakemake"))

# %%
HEADINGS = {
    "test_err": ("Err test", 1),
    "test_rerr_pgd": ("RErr test, PGD", 1),
    "test_rerr_aa": ("RErr test, AA", 1),
    "train_err": ("Err train", 1),
    "train_rerr_pgd": ("RErr train, PGD", 1),
    "train_rerr_aa": ("RErr train, AA", 1),
    "best_test_rerr_pgd": ("Early-stopped, PGD", 1),
    "best_test_rerr_aa": ("Early-stopped, AA", 1),
}
PAIRED = ("test_rerr_pgd", "test_rerr_aa")
frame = typeset.variants(notebook, [*HEADINGS])
by = aggregate.robust_error_column(frame)
frame = frame.sort_values(by, kind="stable").dropna(axis="columns", how="all")

# %%
columns = {"label": "Method", **typeset.compared(HEADINGS, only=PAIRED)}
words = [word for word in notebook.tables.models.get("autoattack", []) if word][:1] or ["not run"]
note = f"In per cent, by increasing RErr. AA: {words[0]}. Every published column is in the CSV."
title = f"Errors of all variants ({notebook.experiment})"
notebook.write(typeset.texts(frame, columns, title, typeset.notes(notebook, note)))
