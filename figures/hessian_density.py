# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # The spectrum of the Hessian
#
# Density of the eigenvalues of the Hessian of the clean and of the robust loss on a logarithmic axis, for the
# variants of which it was measured, with the first seed. A tall peak at 0 holds nearly all of them; a few lie
# far to the right, the farther the sharper the minimum.

# %%
from robust_flatness.plotting import density, inputs, looks, style
from robust_flatness.tables.records import read_records

notebook = inputs("hessian_density", globals().get("snakemake"))
rows = density.records_of(read_records(notebook.directory / "records.csv"))
rows = rows[rows["seed"] == rows.groupby("variant")["seed"].transform("min")]
COLORS = (style.BLACK, style.BLUE, style.VERMILLION, style.GREEN, style.ORANGE, style.PURPLE, style.GREY)


# %%
def draw():
    slugs = sorted(rows["variant"].unique(), key=lambda slug: slug != "at")
    look = {
        slug: {"label": looks.variant(slug), "color": COLORS[number % len(COLORS)], "linewidth": 1}
        for number, slug in enumerate(slugs)
    }
    return density.densities(rows, look)


# %%
what = "density of the Hessian's eigenvalues"
notebook.show(draw, notebook.missing_unless(len(rows), what, "add measures.density to the config"))
