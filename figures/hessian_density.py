# %% [markdown]
# # The spectrum of the Hessian

# %%
from robust_flatness.plotting import density, inputs, looks
from robust_flatness.tables.records import read_records

notebook = inputs("hessian_density", globals().get("snakemake"))
families = notebook.ours.models.set_index("variant")["family"]
rows = read_records(notebook.directory / "records.csv")
rows = rows[(rows["metric"] == "density") & rows["value"].notna()]
rows = rows[rows["variant"].isin(families.index)]  # scaled copies: see scale_invariance
rows = rows[rows["seed"] == rows.groupby("variant")["seed"].transform("min")]


# %%
def draw():
    slugs = sorted(rows["variant"].unique(), key=lambda slug: slug != "at")
    return density.densities(
        rows, {slug: {"label": looks.variant(slug), **looks.line(families[slug])} for slug in slugs}
    )


# %%
what = "density of the Hessian's eigenvalues"
notebook.show(draw, notebook.missing_unless(len(rows), what, "add measures.density to the config"))
