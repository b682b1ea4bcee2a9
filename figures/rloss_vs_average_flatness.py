# %% [markdown]
# # Robust loss against average-case flatness
#
# The headline plot: one point per training variant, at its last checkpoint. Average-case flatness is the
# mean rise of RLoss under random perturbations of the weights, of half of each layer's norm.
#
# The paper: flatter models are more robust. Across all variants, low average-case flatness goes with low
# RLoss.

# %%
from robust_flatness.plotting import inputs, scatter

notebook = inputs("rloss_vs_average_flatness", globals().get("snakemake"))

# %%
scatter.show(notebook, ("avg_flatness_rloss", "test_rloss_pgd"), height=3.6, headline=True)
