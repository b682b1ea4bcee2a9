# %% [markdown]
# # Robust error against average-case flatness

# %%
from robust_flatness.plotting import inputs, scatter
from robust_flatness.tables import aggregate

notebook = inputs("rerr_vs_average_flatness", globals().get("snakemake"))

# %%
rerr = aggregate.robust_error_column(notebook.ours.models)
scatter.show(notebook, ("avg_flatness_rloss", rerr), height=3.6, headline=True)
