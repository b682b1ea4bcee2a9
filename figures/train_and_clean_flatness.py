# %% [markdown]
# # Flatness on training examples and of the clean loss
#
# Test RLoss against average-case flatness measured on training examples, and against average-case flatness of
# the *clean* loss on test examples.
#
# Tested: flatness on training examples predicts test RLoss as well; average-case flatness of the clean loss
# predicts it less well.

# %%
from robust_flatness.plotting import inputs, scatter

notebook = inputs("train_and_clean_flatness", globals().get("snakemake"))

# %%
measures = ["train_avg_flatness_rloss", "avg_flatness_ce"]
scatter.show(notebook, *((measure, "test_rloss_pgd") for measure in measures), height=2.7)
