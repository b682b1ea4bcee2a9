# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Errors of all variants
#
# Clean and robust errors on test and training examples, and of the early-stopped checkpoint.

# %%
from robust_flatness import tables as results
from robust_flatness.plotting import inputs, tables

notebook = inputs("errors", globals().get("snakemake"))

# %%
measures = [*results.ERRORS, "best_test_rerr_pgd", "best_test_rerr_aa"]
shared = ["variant", "label", "family"]
frame = notebook.variants.reindex(columns=[*shared, *measures, *(f"{name}_seed_sd" for name in measures)])
if not notebook.is_paper:
    theirs = notebook.published.variants
    for name in measures:
        values = dict(zip(theirs["variant"], theirs[name], strict=True))
        frame[f"{name}_published"] = frame["variant"].map(values)
by = results.robust_error_column(notebook.variants)
frame = frame.sort_values(by, kind="stable").dropna(axis="columns", how="all")

# %%
HEADINGS = {
    **{"test_err": "Err test", "test_rerr_pgd": "RErr test, PGD", "test_rerr_aa": "RErr test, AA"},
    **{"train_err": "Err train", "train_rerr_pgd": "RErr train, PGD", "train_rerr_aa": "RErr train, AA"},
    **{"best_test_rerr_pgd": "Early-stopped, PGD", "best_test_rerr_aa": "Early-stopped, AA"},
}
columns = {"label": tables.Column("Method")}
columns |= {name: tables.Column(heading, tables.digits(1)) for name, heading in HEADINGS.items()}
columns["test_rerr_pgd_published"] = tables.Column("RErr test, PGD, published", tables.digits(1))
columns["test_rerr_aa_published"] = tables.Column("RErr test, AA, published", tables.digits(1))
words = [word for word in notebook.models.get("autoattack", []) if word][:1] or ["not run"]
notes = [f"In per cent, by increasing RErr. AA: {words[0]}. Every published column is in the CSV."]
notebook.write(tables.texts(frame, columns, f"Errors of all variants ({notebook.experiment})", notes))
