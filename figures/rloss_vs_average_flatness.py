# %% [markdown]
# # Robust loss against average-case flatness

# %%
from robust_flatness.plotting import inputs, scatter

notebook = inputs("rloss_vs_average_flatness", globals().get("snakemake"))

# %%
scatter.show(notebook, ("avg_flatness_rloss", "test_rloss_pgd"), height=3.6, headline=True)
