# %% [markdown]
# # Robust error against average-case flatness
#
# As the headline plot, with the error in place of the loss. The paper: the relation is weaker, since above
# RLoss of ln K a lower loss hardly lowers the error (see `rerr_vs_rloss`).

# %%
from robust_flatness.plotting import inputs, scatter
from robust_flatness.tables import aggregate

notebook = inputs("rerr_vs_average_flatness", globals().get("snakemake"))

# %%
rerr = aggregate.robust_error_column(notebook.ours.models)
scatter.show(notebook, ("avg_flatness_rloss", rerr), height=3.6, headline=True)
