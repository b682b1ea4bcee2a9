# %% [markdown]
# # Flatness, generalisation gap and overfitting
#
# Left: the gap of RLoss between test and training examples. Right: how much RLoss rose between the early-
# stopped and the last checkpoint. Both differences are taken within a variant.
#
# The paper: average-case flatness is related to both.

# %%
from robust_flatness.plotting import inputs, scatter

notebook = inputs("gap_and_overfitting", globals().get("snakemake"))

# %%
gap, overfitting = ("avg_flatness_rloss", "rloss_gap"), ("avg_flatness_rloss", "rloss_overfitting")
scatter.show(notebook, gap, overfitting, height=2.7)
