# %% [markdown]
# # The claims, judged
#
# Each claim of the talk with its statistics and a verdict, by the rules in `config/claims.yaml`, which are
# about sign and significance and not about nearness to the published value.

# %%
from robust_flatness.plotting import inputs, verdicts

notebook = inputs("claims", globals().get("snakemake"))

# %%
verdicts.write(notebook, "The claims")
