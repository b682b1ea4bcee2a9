# %% [markdown]
# # Hessian and convexity

# %%
from robust_flatness.plotting import inputs, typeset
from robust_flatness.tables import aggregate, frames, schema
from robust_flatness.tables.printed import read_printed

notebook = inputs("hessian", globals().get("snakemake"))
printed = read_printed("hessian")
HESSIAN = ("hessian_max", "hessian_min", "convexity")

# %%
models = notebook.ours.scaled.reindex(columns=["variant", "label", *HESSIAN, *schema.ERRORS])
rerr = aggregate.robust_error_column(models)
frame = models.dropna(subset=["hessian_max"])[["variant", "label", rerr, *HESSIAN]]
theirs = printed.set_axis(
    ["variant", "test_rerr_aa_published", "hessian_max_published", "convexity_published"], axis="columns"
)
order = {slug: index for index, slug in enumerate(theirs["variant"])}
if notebook.printed:
    frame = frame.merge(theirs, on="variant", how="outer" if frame.empty else "left")
    labels = {slug: spec.label for slug, spec in frames.catalogue().items()}
    frame["label"] = frame["label"].fillna(frame["variant"].map(labels))
frame = frame.sort_values("variant", key=lambda slugs: slugs.map(order), kind="stable")

# %%
columns = {
    "label": "Model",
    rerr: ("RErr test (%)", 1),
    "hessian_min": ("λmin", 1),
    **typeset.compared({"hessian_max": ("λmax", 1), "convexity": ("|λmin| / |λmax|", 3)}),
}
notes = ["The published eigenvalues sum the loss of four batches: about four times those of the mean loss."]
if notebook.printed and aggregate.scaled(notebook.tables.models).any():
    notes.append("All models are averaged over the seeds of the scaled copies alone.")
if frame["hessian_max"].isna().all():
    notes.insert(0, "Not measured here: add measures.hessian to the config.")
notebook.write(typeset.texts(frame, columns, f"Hessian and convexity ({notebook.experiment})", notes))
