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
from robust_flatness import tables as results
from robust_flatness.plotting import inputs, looks, style

notebook = inputs("loss_landscapes", globals().get("snakemake"))
landscape = results.over_seeds(
    notebook.tables.landscape[notebook.tables.landscape["checkpoint"] == "last"],
    ("variant", "direction", "normalisation", "s"),
)
DIRECTIONS = ("random", "adversarial", "hessian")
LINES = ("-", "--", ":", "-.")


# %%
def lines():
    """Colour of the family; variants of one family differ in the line."""
    seen, found = {}, {}
    for slug in sorted(dict.fromkeys(landscape["variant"]), key=lambda slug: slug != "at"):
        spec = results.catalogue().get(slug)
        name = "at" if spec and spec.family == "scaled" else spec.family if spec else results.OTHER
        color = looks.color(name)
        found[slug] = {
            "color": color,
            "linestyle": LINES[seen.get(color, 0) % len(LINES)],
            "label": looks.variant(slug),
        }
        seen[color] = seen.get(color, 0) + 1
    return found


def draw():
    normalisations = [name for name in ("layer", "filter") if name in set(landscape["normalisation"])]
    directions = [name for name in DIRECTIONS if name in set(landscape["direction"])]
    figure, panels = style.panels(
        len(normalisations), len(directions), height=2.1 * len(normalisations) + 0.7, sharey="col"
    )
    shown = lines()
    grid = [(normalisation, direction) for normalisation in normalisations for direction in directions]
    for axes, (normalisation, direction) in zip(panels, grid, strict=True):
        part = landscape[
            (landscape["normalisation"] == normalisation) & (landscape["direction"] == direction)
        ]
        if part.empty:
            style.message(axes, "not measured")
        for slug, look in shown.items():
            rows = part[part["variant"] == slug].sort_values("s")
            axes.plot(rows["s"], rows["rloss"], linewidth=1.1, **look)
            if rows["rloss_std"].notna().any():
                low, high = rows["rloss"] - rows["rloss_std"], rows["rloss"] + rows["rloss_std"]
                axes.fill_between(rows["s"], low, high, color=look["color"], alpha=0.1, linewidth=0)
        along = landscape.loc[landscape["direction"] == direction, "rloss"]
        if along.max() > 50 * along.min() > 0:  # along eigenvectors it may rise a thousandfold
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
        scale = part["scale"].iloc[0] if len(part) else float("nan")
        axes.set_title(f"{direction.title()}, {normalisation}-wise (× {scale:g})", fontsize=7.5)
    for axes in panels[-len(directions) :]:
        axes.set_xlabel("step s along the direction")
    for axes in panels[:: len(directions)]:
        axes.set_ylabel("RLoss")
    entries = panels[0].get_legend_handles_labels()[0]
    style.legend_below(figure, entries, columns=5)
    return figure


# %%
missing = notebook.missing("rloss", table="landscape")
notebook.save(style.missing_page("Loss landscapes", missing) if missing else draw())
