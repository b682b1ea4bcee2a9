# %% [markdown]
# # The claims, judged

# %%
from robust_flatness.plotting import inputs, verdicts

notebook = inputs("claims", globals().get("snakemake"))

# %%
verdicts.write(notebook, "The claims")
