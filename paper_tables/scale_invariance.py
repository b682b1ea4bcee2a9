# %% [markdown]
# # Scale invariance

# %%
from robust_flatness.plotting import inputs, typeset
from robust_flatness.tables.printed import read_printed

notebook = inputs("scale_invariance", globals().get("snakemake"))
SLUGS = ("at-scaled-0.5", "at", "at-scaled-2")

# %%
measures = ["test_rerr_pgd", "train_rerr_pgd", "avg_flatness_rloss", "worst_flatness_rloss"]
measures += ["worst_flatness_ce", "hessian_max"]
models = notebook.ours.scaled
frame = models[models["variant"].isin(SLUGS)].reindex(columns=["variant", "label", *measures])
printed = read_printed("scale_invariance").rename(columns={"model": "variant"})
hessian = read_printed("hessian")
printed["hessian_max"] = printed["variant"].map(
    dict(zip(hessian["model"], hessian["lambda_max"], strict=True))
)
if notebook.printed is None:
    frame = frame[["variant", "label"]].merge(printed, on="variant")
else:
    theirs = printed.rename(columns=lambda name: name if name == "variant" else f"{name}_published")
    frame = frame.merge(theirs, on="variant", how="left")
frame = frame.sort_values("variant", key=lambda slugs: slugs.map(SLUGS.index), kind="stable")

# %%
HEADINGS = {
    "test_rerr_pgd": ("RErr test, PGD", 1),
    "train_rerr_pgd": ("RErr train, PGD", 1),
    "avg_flatness_rloss": ("Average-case flatness", 2),
    "worst_flatness_rloss": ("Worst-case flatness", 2),
    "worst_flatness_ce": ("Worst-case flatness in CE", 2),
    "hessian_max": ("λmax", 1),
}
columns = {"label": "Model", **typeset.compared(HEADINGS)}
notes = ["Errors in per cent. The published worst-case flatness in CE of `at` is 0.86 here, 21.05 elsewhere."]
lacking = [slug for slug in SLUGS if slug not in set(frame["variant"])]
if lacking:
    notes.insert(0, f"Not measured here: {', '.join(lacking)}; add them to the experiment's variants.")
notebook.write(typeset.texts(frame, columns, f"Scale invariance ({notebook.experiment})", notes))
