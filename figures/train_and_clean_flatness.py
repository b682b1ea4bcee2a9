# %% [markdown]
# # Flatness on training examples and of the clean loss

# %%
from robust_flatness.plotting import inputs, scatter

notebook = inputs("train_and_clean_flatness", globals().get("snakemake"))

# %%
measures = ["train_avg_flatness_rloss", "avg_flatness_ce"]
scatter.show(notebook, *((measure, "test_rloss_pgd") for measure in measures), height=2.7)
