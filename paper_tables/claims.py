# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # The claims, judged
#
# Each claim of the talk with its statistics and a verdict, by the rules in `config/claims.yaml`, which are
# about sign and significance and not about nearness to the published value.

# %%
from robust_flatness.analysis import claims
from robust_flatness.plotting import inputs, tables

notebook = inputs("claims", globals().get("snakemake"))

# %%
judged = claims.judge(notebook.tables, None if notebook.is_paper else notebook.published.tables)
frame = claims.claims_frame(judged)
headings = {claim.name: f"{claim.name}: {claim.verdict}" for claim in judged}
frame["section"] = frame["claim"].map(headings)
frame["shown"] = frame["outcome"] + frame["decides"].map({"yes": "", "no": " (beside it)"})
paragraphs = {headings[claim.name]: f"{claim.spec.statement}\n\nRule: {claim.spec.rule}" for claim in judged}
verdicts = claims.verdicts_table(judged, notebook.experiment)

# %%
columns = {
    "statistic": tables.Column("Statistic"),
    "value": tables.Column("Value", tables.digits(2)),
    "low": tables.Column("95 % from", tables.digits(2)),
    "high": tables.Column("to", tables.digits(2)),
    "interval_over": tables.Column("over"),
    "n": tables.Column("n", tables.digits(0)),
    "p": tables.Column("p", tables.p_value),
    "published": tables.Column("Published", tables.digits(2)),
    "talk": tables.Column("Talk", tables.digits(2)),
    "shown": tables.Column("Outcome"),
    "note": tables.Column("Note"),
}
notes = [
    "A test with a sign holds if its 95 % interval lies on that side of 0 and p < 0.05 (two-sided). Over "
    "variants or families, intervals are bootstraps, of which the wider one is shown and decides, and "
    "p-values are of permutations. Tests marked (beside it) do not change the verdict. Published: the same "
    "statistic on the printed numbers. Talk: the value it states."
]
title = f"The claims, judged on {notebook.experiment}"
notebook.write(tables.texts(frame, columns, title, notes, "section", paragraphs, verdicts))
