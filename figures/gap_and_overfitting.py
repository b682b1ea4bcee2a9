# %% [markdown]
# # Flatness, generalisation gap and overfitting

# %%
from robust_flatness.plotting import inputs, scatter

notebook = inputs("gap_and_overfitting", globals().get("snakemake"))

# %%
gap, overfitting = ("avg_flatness_rloss", "rloss_gap"), ("avg_flatness_rloss", "rloss_overfitting")
scatter.show(notebook, gap, overfitting, height=2.7)
