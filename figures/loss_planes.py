# %% [markdown]
# # Planes of the loss

# %%
from robust_flatness.plotting import inputs, looks, planes
from robust_flatness.tables.records import read_records

notebook = inputs("loss_planes", globals().get("snakemake"))
records = read_records(notebook.directory / "records.csv")
records = records[(records["measure"] == "plane") & (records["checkpoint"] == "last")]
records = records[records["value"].notna()]


# %%
def draw():
    # planes of several seeds have no axes in common
    first = records[records["seed"] == records["seed"].min()]
    return planes.figure({looks.variant(slug): rows for slug, rows in first.groupby("variant", sort=False)})


# %%
missing = notebook.missing_unless(len(records), "losses on a plane", "add measures.plane to the config")
notebook.show(draw, missing)
