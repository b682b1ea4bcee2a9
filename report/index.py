# %% [markdown]
# # The page of an experiment
#
# One HTML file to explore the results with: the headline plot with both axes to choose from all measures,
# training curves of what is selected, verdicts, measures compared, loss landscapes. It works offline.

# %%
from robust_flatness.page.build import write_page
from robust_flatness.plotting import inputs

notebook = inputs("index", globals().get("snakemake"))
page = notebook.output("report", ".html")

# %%
snakemake = globals().get("snakemake")
write_page(notebook, page, snakemake.params.description if snakemake else "")
