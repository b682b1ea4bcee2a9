# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # The claims, judged
#
# Each claim of the talk with its statistics and a verdict, by the rules in `config/claims.yaml`, which are
# about sign and significance and not about nearness to the published value.

# %%
from robust_flatness.analysis import claims
from robust_flatness.plotting import inputs, verdicts

notebook = inputs("claims", globals().get("snakemake"))

# %%
judged = claims.judge(notebook.tables_with_examples, notebook.printed and notebook.printed.tables)
title = f"The claims, judged on {notebook.experiment}"
notebook.write(verdicts.texts(judged, title, notebook.experiment))
