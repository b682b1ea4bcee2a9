# %% [markdown]
# # The headline table

# %%
import pandas as pd

from robust_flatness.plotting import inputs, typeset
from robust_flatness.tables import aggregate
from robust_flatness.tables.printed import read_printed

notebook = inputs("headline", globals().get("snakemake"))
printed = read_printed("headline")
test, train = (aggregate.robust_error_column(notebook.ours.variants, split) for split in ("test", "train"))
shown = [test, train, "avg_flatness_rloss", "worst_flatness_rloss", f"best_{test}"]
# The published columns' names, with the attack that was run.
attack = test.rsplit("_", 1)[1]
names = dict(
    zip(shown, (name.replace("rerr_aa", f"rerr_{attack}") for name in printed.columns[1:]), strict=True)
)

# %%
ours = notebook.ours.variants
grouped = aggregate.with_groups(ours.assign(label=typeset.labels(ours)))
variants = grouped.reindex(columns=["variant", "label", "group", *shown])
rows = []
for group in [*aggregate.GROUPS, ""]:
    members = variants[variants["group"] == group].sort_values(test, kind="stable")
    listed = members[members["variant"].isin(printed["variant"])]
    rows.append(listed.assign(section=group or "not grouped"))
    if group and len(members):
        mean = members[shown].mean().to_frame().T
        label = f"average of all {len(members)}"
        rows.append(mean.assign(variant=f"average-{group}", label=label, group=group, section=group))
if notebook.printed and len(notebook.ours.others):
    others = notebook.ours.others.sort_values(test, kind="stable")
    rows.append(others.reindex(columns=["variant", "label", *shown]).assign(section="networks of others"))
frame = pd.concat(rows, ignore_index=True).rename(columns=names)
if notebook.printed:
    theirs = printed.set_axis(["variant", *(f"{name}_published" for name in names.values())], axis="columns")
    frame = frame.merge(theirs, on="variant", how="left")

# %%
HEADINGS = {
    f"test_rerr_{attack}": ("RErr test", 1),
    f"train_rerr_{attack}": ("RErr train", 1),
    "avg_flatness_rloss": ("Average-case flatness", 2),
    "worst_flatness_rloss": ("Worst-case flatness", 2),
    f"early_stop_rerr_{attack}": ("RErr early-stopped", 1),
}
columns = {"label": "Method", **typeset.compared(HEADINGS)}
words = [word for word in notebook.tables.models.get("autoattack", ()) if word]
note = f"RErr in per cent, by {words[0] if words and attack == 'aa' else 'PGD'}."
note += " Published: ResNet-18, RErr by AutoAttack." * bool(notebook.printed)
title = f"Robustness and flatness of selected methods ({notebook.experiment})"
frame = frame.drop(columns=["group"])
notebook.write(typeset.texts(frame, columns, title, typeset.notes(notebook, note), sections="section"))
