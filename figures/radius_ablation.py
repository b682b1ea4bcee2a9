# %% [markdown]
# # The radius of the neighbourhood

# %%
from functools import partial

import numpy as np

from robust_flatness.analysis.correlation import coefficient, correlate
from robust_flatness.plotting import inputs, scatter, style
from robust_flatness.tables import aggregate

notebook = inputs("radius_ablation", globals().get("snakemake"))
ours, Y = notebook.ours.counted, "test_rloss_pgd"
CASES = {"avg": "Average-case flatness", "worst": "Worst-case flatness"}
radii = {case: aggregate.all_radii(ours, case) for case in CASES}
radii = {
    case: {xi: x for xi, x in found.items() if aggregate.has(ours, x, Y)} for case, found in radii.items()
}


# %%
def summary(axes, case):
    """Draw Pearson's coefficient with its interval at each radius, and the printed one hollow."""
    places = {xi: place for place, xi in enumerate(radii[case])}
    lowest = -0.6
    for xi, x in radii[case].items():
        found = correlate(ours, x, Y)
        lowest = min(lowest, found.interval.low)
        ends = np.abs(np.array([found.interval]).T - found.value)
        axes.errorbar(places[xi], found.value, ends, fmt="o", color=style.BLACK, elinewidth=1)
    printed = notebook.published.counted
    for xi, x in aggregate.all_radii(printed, case).items() if notebook.printed else ():
        if xi in places:
            value = coefficient(printed[x], printed[Y], "pearson")
            axes.plot(places[xi] + 0.2, value, "o", color=style.GREY, markerfacecolor="none")
    axes.axhline(0, color=style.GREY, linewidth=0.8)
    axes.set(xlim=(-0.5, len(places) - 0.5), ylim=(lowest, 1.05), title=CASES[case])
    axes.set(xlabel="radius ξ", ylabel="r with test RLoss")
    axes.set_xticks(range(len(places)), [f"{xi:g}" for xi in places])
    return []


def draw():
    cells = []
    for case, found in ((case, found) for case, found in radii.items() if found):
        cells.append(partial(summary, case=case))
        for xi in dict.fromkeys((min(found), max(found))):
            look = {"x": found[xi], "y": Y, "title": f"ξ = {xi:g}"}
            cells.append(partial(scatter.panel, layer=notebook.ours, **look))
    return scatter.figure(cells, scatter.notes(notebook), height=2.2)


# %%
what, remedy = "flatness of variants that have learnt", "measure flatness, or train longer"
notebook.show(draw, notebook.missing_unless(any(radii.values()), what, remedy))
