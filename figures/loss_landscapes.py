# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Loss landscapes
#
# RLoss along directions in weight space, with adversarial examples computed anew at every point: the mean
# over random directions (band: standard deviation), the maximum over adversarial ones, and the top
# eigenvector of the Hessian. Upper row: directions normalised per layer; lower row: per filter.
#
# Flat minima are wide valleys here. The paper: robust models rise slowly in random and in adversarial
# directions.

# %%
import numpy as np

from robust_flatness.plotting import inputs, looks, style
from robust_flatness.tables import aggregate

notebook = inputs("loss_landscapes", globals().get("snakemake"))
landscape = notebook.ours.landscape
DIRECTIONS = {"random": "Random", "adversarial": "Adversarial", "hessian": "Top Hessian eigenvector"}
COLORS = (style.VERMILLION, style.BLUE, style.GREEN, style.ORANGE, style.PURPLE, style.GREY)
slugs = sorted(dict.fromkeys(landscape["variant"]), key=lambda slug: (slug != "at", "scaled" not in slug))
scaled = [slug for slug in slugs if "scaled" in slug]


# %%
def look(slug):
    """Colour and line of a variant: AT thick; its scaled copies, which may lie on it, thin and broken."""
    if slug == "at":
        return {"color": "black", "linewidth": 2.4, "alpha": 0.6}
    color = COLORS[(slugs.index(slug) - 1) % len(COLORS)]
    line = ("--", ":")[scaled.index(slug) % 2] if slug in scaled else "-"
    return {"color": color, "linewidth": 1.2, "linestyle": line}


def draw():
    normalisations = [name for name in ("layer", "filter") if name in set(landscape["normalisation"])]
    directions = [name for name in DIRECTIONS if name in set(landscape["direction"])]
    cells = [(normalisation, direction) for normalisation in normalisations for direction in directions]
    figure, panels = style.panels(len(cells), len(directions), height=1.9, sharey="col")
    tops = 1.05 * landscape.groupby("direction")["rloss"].agg(lambda loss: loss[style.near(loss)].max())
    tops["hessian"] = tops.get("adversarial", tops.max())  # along it RLoss may rise a millionfold
    step = np.abs(landscape.loc[landscape["s"] != 0, "s"]).min()
    for axes, (normalisation, direction) in zip(panels, cells, strict=True):
        part = landscape[landscape["normalisation"] == normalisation]
        part = part[part["direction"] == direction]
        for slug in slugs:
            rows = part[part["variant"] == slug].sort_values("s")
            axes.plot(rows["s"], rows["rloss"], label=looks.variant(slug), **look(slug))
            if aggregate.has(rows, "rloss_std"):
                low, high = rows["rloss"] - rows["rloss_std"], rows["rloss"] + rows["rloss_std"]
                axes.fill_between(rows["s"], low, high, color=look(slug)["color"], alpha=0.12, linewidth=0)
        top = tops[direction]
        inside = part.loc[part["rloss"] <= top, "s"]
        reach = max(np.abs(inside).max(), step)
        axes.set(xlim=(-1.15 * reach, 1.15 * reach), ylim=(0.8 * landscape["rloss"].min(), top))
        scale = part["scale"].iloc[0] if len(part) else float("nan")
        axes.set_title(f"{DIRECTIONS[direction]}, per {normalisation} (× {scale:g})")
    style.name_bottom(panels, len(directions), "step s along the direction")
    figure.supylabel("RLoss")
    text = "Directions at s = 1 have × the norm of each layer's, or filter's, weights. Band: standard "
    text += "deviation over random directions. Axes are cut where RLoss would hide the minimum."
    style.legend(figure, style.entries(panels), text, columns=4)
    return figure


# %%
notebook.show(draw, notebook.missing("rloss", table="landscape"))
