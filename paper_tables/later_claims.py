# %% [markdown]
# # Claims made since the talk, judged
#
# What later papers say of flatness, sharpness and robust generalisation, by the rules in
# `config/later-claims.yaml` and on this experiment; the papers had other data and networks.

# %%
from robust_flatness.folders import repository
from robust_flatness.plotting import inputs, verdicts

notebook = inputs("later_claims", globals().get("snakemake"))

# %%
rules = repository() / "config" / "later-claims.yaml"
verdicts.write(notebook, "Claims made since the talk", rules)
