# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Loss landscapes
#
# RLoss along directions in weight space, adversarial examples being recomputed at every point: the mean
# over random directions (band: standard deviation), the maximum over adversarial ones, and the top
# eigenvector of the Hessian. Upper row: directions normalised per layer; lower row: per filter.
#
# Flat minima are wide valleys here: robust models rise slowly in random and in adversarial directions.

# %%
from robust_flatness.plotting import curves, inputs, looks, style
from robust_flatness.tables import aggregate

notebook = inputs("loss_landscapes", globals().get("snakemake"))
landscape = notebook.ours.landscape
DIRECTIONS = {"random": "Random", "adversarial": "Adversarial", "hessian": "Hessian"}
COLORS = (style.BLUE, style.VERMILLION, style.GREEN, style.ORANGE, style.PURPLE, style.GREY)
LINES = ("-", "--", "-.", ":")


# %%
def groups():
    """Variants whose curves cannot be told apart in any panel: the first one -> all of its group."""
    slugs = sorted(dict.fromkeys(landscape["variant"]), key=lambda slug: slug != "at")
    order = ["direction", "normalisation", "s"]
    rows = {slug: landscape[landscape["variant"] == slug].sort_values(order) for slug in slugs}
    curved = {slug: (part["s"].to_numpy(), part["rloss"].to_numpy()) for slug, part in rows.items()}
    return curves.coinciding(curved, tolerance=0.05)


def lines():
    """A colour and a line of its own per variant or group of them, and its name."""
    found = {}
    for index, (slug, group) in enumerate(groups().items()):
        place = index - 1 if "at" in landscape["variant"].to_numpy() else index
        names = [looks.variant(name) for name in group]
        verb = "coincides" if len(names) == 2 else "coincide"
        label = names[0] + f" ({', '.join(names[1:])} {verb} with it)" * (len(names) > 1)
        color = style.BLACK if slug == "at" else COLORS[place % len(COLORS)]
        found[slug] = {"color": color, "linestyle": LINES[index % len(LINES)], "label": label}
    return found


def draw():
    normalisations = [name for name in ("layer", "filter") if name in set(landscape["normalisation"])]
    directions = [name for name in DIRECTIONS if name in set(landscape["direction"])]
    figure, panels = style.panels(
        len(normalisations), len(directions), height=2.0 * len(normalisations) + 0.5, sharey="col"
    )
    shown = lines()
    grid = [(normalisation, direction) for normalisation in normalisations for direction in directions]
    for axes, (normalisation, direction) in zip(panels, grid, strict=True):
        part = landscape[
            (landscape["normalisation"] == normalisation) & (landscape["direction"] == direction)
        ]
        for slug, look in shown.items():
            rows = part[part["variant"] == slug].sort_values("s")
            axes.plot(rows["s"], rows["rloss"], linewidth=1.2, **look)
            if aggregate.has(rows, "rloss_std"):
                low, high = rows["rloss"] - rows["rloss_std"], rows["rloss"] + rows["rloss_std"]
                axes.fill_between(rows["s"], low, high, color=look["color"], alpha=0.12, linewidth=0)
        along = landscape.loc[landscape["direction"] == direction, "rloss"]
        if along.max() > 50 * along.min() > 0:  # along eigenvectors it may rise a thousandfold
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
        scale = part["scale"].iloc[0] if len(part) else float("nan")
        axes.set_title(f"{DIRECTIONS[direction]}, {normalisation}-wise (× {scale:g})", fontsize=7)
    for axes in panels[-len(directions) :]:
        axes.set_xlabel("step s along the direction")
    for axes in panels[:: len(directions)]:
        axes.set_ylabel("RLoss")
    note = (
        "Directions at s = 1 have × the norm of each layer's, or filter's, weights. Hessian: along its top "
    )
    note += "eigenvector. Band: standard deviation over random directions."
    style.legend_below(figure, panels[0].get_legend_handles_labels()[0], columns=4, text=note)
    return figure


# %%
notebook.show(draw, notebook.missing("rloss", table="landscape"))
