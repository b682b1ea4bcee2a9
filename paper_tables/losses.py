# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Losses and flatness of all variants
#
# Clean and robust cross-entropy on test and training examples, and all four flatness measures.

# %%
from robust_flatness import tables as results
from robust_flatness.plotting import inputs, tables

notebook = inputs("losses", globals().get("snakemake"))

# %%
measures = [*results.LOSSES, "best_test_rloss_pgd", *results.FLATNESS]
frame = notebook.variants.reindex(
    columns=[
        *("variant", "label", "family", *measures, "avg_flatness_rloss_se"),
        *(f"{name}_seed_sd" for name in measures),
    ]
)
if not notebook.is_paper:
    theirs = notebook.published.variants
    for name in measures:
        values = dict(zip(theirs["variant"], theirs[name], strict=True))
        frame[f"{name}_published"] = frame["variant"].map(values)
frame = frame.sort_values("test_rloss_pgd", kind="stable").dropna(axis="columns", how="all")

# %%
HEADINGS = {
    **{"test_ce": "CE test", "test_rloss_pgd": "RLoss test", "train_ce": "CE train"},
    **{"train_rloss_pgd": "RLoss train", "best_test_rloss_pgd": "RLoss early-stopped"},
    **{"avg_flatness_rloss": "Average-case flatness", "worst_flatness_rloss": "Worst-case flatness"},
    **{"avg_flatness_ce": "Average-case, CE", "worst_flatness_ce": "Worst-case, CE"},
    "test_rloss_pgd_published": "RLoss test, published",
    "avg_flatness_rloss_published": "Average-case flatness, published",
}
columns = {"label": tables.Column("Method")}
columns |= {name: tables.Column(heading, tables.digits(2)) for name, heading in HEADINGS.items()}
notes = ["By increasing RLoss. RLoss by PGD; every published column is in the CSV."]
if not notebook.is_paper and not notebook.same_data:
    notes.append("Published: CIFAR-10. Another dataset here: compare rank and sign, not values.")
notebook.write(
    tables.texts(frame, columns, f"Losses and flatness of all variants ({notebook.experiment})", notes)
)
