# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # The radius of the neighbourhood
#
# At each radius ξ of the neighbourhood in weight space, relative to the norm of each layer: the correlation
# of test RLoss with average-case flatness (upper row) and worst-case flatness (lower row), and the variants
# behind it.
#
# The paper: the average-case measure is robust to the choice of its radius; the worst-case measure depends
# on it.

# %%
import numpy as np
import pandas as pd

from robust_flatness.analysis.correlation import coefficient
from robust_flatness.plotting import inputs, scatter, style
from robust_flatness.tables import aggregate

notebook = inputs("radius_ablation", globals().get("snakemake"))
variants = notebook.ours.counted
others = notebook.ours.hollow()
drawn = pd.concat([variants, others])
Y = "test_rloss_pgd"
RADII = {
    case: {xi: x for xi, x in aggregate.all_radii(drawn, case).items() if aggregate.has(drawn, x, Y)}
    for case in ("avg", "worst")
}
NAMES = {"avg": "Average-case", "worst": "Worst-case"}


# %%
def summary(axes, case, radii, found):
    """Draw Pearson's coefficient with its interval at each radius, ours and the printed one."""
    for place, xi in enumerate(radii):
        value, (low, high) = found[xi][0].value, found[xi][0].interval
        if np.isfinite(value):
            bar = [[value - low], [high - value]]
            axes.errorbar(place, value, bar, fmt="o", color=style.BLACK, elinewidth=1)
    published = notebook.printed.counted if notebook.printed else variants.iloc[:0]
    for xi, x in aggregate.all_radii(published, case).items():
        if xi in radii:
            value = coefficient(published[x], published[Y], "pearson")
            axes.plot([*radii].index(xi) + 0.2, value, "o", color=style.GREY, markerfacecolor="none")
    axes.axhline(0, color=style.GREY, linewidth=0.8)
    axes.set(xlim=(-0.5, len(radii) - 0.5), ylim=(-0.6, 1.05))
    axes.set(xlabel="radius ξ", ylabel="Pearson r with test RLoss")
    axes.set_xticks(range(len(radii)), [f"{xi:g}" for xi in radii], rotation=45)
    axes.set_title(f"{NAMES[case]}\nflatness")


def draw():
    shown = {case: radii for case, radii in RADII.items() if radii}
    columns = 1 + max(len(radii) for radii in shown.values())
    figure, panels = style.panels(columns * len(shown), columns, height=1.9, room=1.2)
    named = []
    for row, (case, radii) in enumerate(shown.items()):
        summarised, *places = panels[row * columns : (row + 1) * columns]
        frames = {xi: variants.dropna(subset=[x, Y]) for xi, x in radii.items()}
        found = {xi: scatter.correlations(frames[xi], x, Y) for xi, x in radii.items()}
        summary(summarised, case, radii, found)
        for axes in places[len(radii) :]:
            axes.remove()
        for axes, (xi, x) in zip(places, radii.items(), strict=False):
            named.append((axes, x, scatter.cloud(axes, notebook.ours, others, x, Y, size=9)))
            pearson, words = found[xi]
            if pearson.interval.low > 0:
                scatter.trend(axes, frames[xi], x, Y)
            axes.set_title("\n".join([f"ξ = {xi:g}", *words]), fontsize=5.5)
            axes.set_xlabel("flatness", fontsize=6.5)
            axes.tick_params(labelsize=5.5)
    text = "Hollow, left: published. " * bool(notebook.printed) + "Vertical axes of points: test RLoss. "
    text += f"Lower is flatter and more robust. {scatter.INTERVALS}"
    style.legend(figure, style.handles(variants["family"], others["family"]), text, notebook.ours.apart)
    for axes, x, beyond in named:
        scatter.label_points(axes, notebook.ours, x, Y, beyond)
    return figure


# %%
what, remedy = "flatness of variants that have learnt", "measure flatness, or train longer"
notebook.show(draw, notebook.missing_unless(any(RADII.values()), what, remedy))
