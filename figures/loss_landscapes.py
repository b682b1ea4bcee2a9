# %% [markdown]
# # Loss landscapes

# %%
from robust_flatness.plotting import inputs, looks, style
from robust_flatness.tables import aggregate

notebook = inputs("loss_landscapes", globals().get("snakemake"))
DIRECTIONS = {"random": "Random", "adversarial": "Adversarial", "hessian": "Top eigenvector"}
TOPS = {"adversarial": 10, "hessian": 1000}  # axis limits, in multiples of the highest RLoss at a minimum
families = notebook.ours.models.set_index("variant")["family"]
landscape = notebook.ours.landscape
landscape = landscape[landscape["variant"].isin(families.index)]  # scaled copies: see scale_invariance


# %%
def draw():
    lines = landscape.groupby(["normalisation", "direction"])
    cells = [(way, name) for way in ("layer", "filter") for name in DIRECTIONS if (way, name) in lines.groups]
    columns = len({name for _, name in cells})
    names = {"x": "step s along the direction", "y": "RLoss (lower is more robust)"}
    figure, panels = style.panels(len(cells), columns, height=1.9, sharey="col", **names)
    lowest = landscape.loc[landscape["s"] == 0, "rloss"]
    for axes, (way, name) in zip(panels, cells, strict=True):
        part = lines.get_group((way, name)).sort_values("s")
        for slug in sorted(part["variant"].unique(), key=lambda slug: slug != "at"):
            rows, look = part[part["variant"] == slug], looks.line(families[slug])
            axes.plot(rows["s"], rows["rloss"], label=looks.variant(slug), **look)
            if aggregate.has(rows, "rloss_std"):
                low, high = rows["rloss"] - rows["rloss_std"], rows["rloss"] + rows["rloss_std"]
                axes.fill_between(rows["s"], low, high, color=look["color"], alpha=0.12, linewidth=0)
        top = 1.05 * landscape.loc[landscape["direction"] == name, "rloss"].max()
        top = min(top, TOPS.get(name, top) * lowest.max())
        axes.set(ylim=(0.8 * lowest.min(), top), yscale="log" if name == "hessian" else "linear")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_title(f"{DIRECTIONS[name]}, per {way} (× {part['scale'].iloc[0]:g})")
    text = (
        "At s = 1 the norm of the perturbation of each layer, or filter, is that of its weights times the "
        "factor in the title. Band: standard deviation over random directions. Axes are cut where RLoss "
        "would hide the minimum; logarithmic on the right."
    )
    style.legend(figure, style.entries(panels), text)
    return figure


# %%
notebook.show(draw, notebook.missing("rloss", table="landscape"))
