# %% [markdown]
# # Robust loss against worst-case flatness

# %%
from robust_flatness.plotting import inputs, scatter
from robust_flatness.tables import aggregate

notebook = inputs("rloss_vs_worst_flatness", globals().get("snakemake"))
small = aggregate.all_radii(notebook.ours.variants, "worst").get(0.00075)

# %%
columns = [*dict.fromkeys(["worst_flatness_rloss", small or "worst_flatness_rloss"])]
pairs = [(column, "test_rloss_pgd") for column in columns]
scatter.show(notebook, *pairs, height=3.0, headline=True)
