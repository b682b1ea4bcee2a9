# %% [markdown]
# # Claims made since the talk, judged

# %%
from robust_flatness.folders import repository
from robust_flatness.plotting import inputs, verdicts

notebook = inputs("later_claims", globals().get("snakemake"))

# %%
rules = repository() / "config" / "later-claims.yaml"
verdicts.write(notebook, "Claims made since the talk", rules)
