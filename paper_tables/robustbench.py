# %% [markdown]
# # RobustBench models

# %%
from robust_flatness.plotting import inputs, typeset
from robust_flatness.tables import schema

notebook = inputs("robustbench", globals().get("snakemake"))

# %%
measures = [*schema.ERRORS, *schema.LOSSES, "avg_flatness_rloss", "worst_flatness_rloss"]
frame = notebook.published.others[["variant", "label", *measures]]
ours = notebook.ours.others
if len(ours) and notebook.printed:
    ours = ours[["variant", "label", *(name for name in measures if name in ours)]]
    frame = frame.merge(ours, on="variant", how="outer", suffixes=("", "_measured"))
    frame["label"] = frame["label"].fillna(frame.pop("label_measured"))

# %%
HEADINGS = {
    **{"test_err": ("Err", 1), "test_rerr_pgd": ("RErr, PGD", 1), "test_rerr_aa": ("RErr, AA", 1)},
    **{"test_ce": ("CE", 2), "test_rloss_pgd": ("RLoss", 2), "train_rloss_pgd": ("RLoss train", 2)},
    "avg_flatness_rloss": ("Average-case flatness", 2),
    "worst_flatness_rloss": ("Worst-case flatness", 2),
}
columns = {"label": "Model", "variant": "RobustBench name"}
for name, (heading, digits) in HEADINGS.items():
    columns[name] = heading, digits
    columns[f"{name}_measured"] = f"{heading}, measured", digits
notes = ["Published: CIFAR-10, on test examples unless said otherwise; errors in per cent."]
title = "RobustBench models, as printed in the paper"
title += f", and networks of others ({notebook.experiment})" * ("test_err_measured" in frame)
notebook.write(typeset.texts(frame, columns, title, notes))
