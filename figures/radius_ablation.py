# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # The radius of the neighbourhood
#
# RLoss against average-case flatness (upper row) and worst-case flatness (lower row) at several radii.
#
# Claim: the average-case measure is robust to the choice of its radius; the worst-case measure depends
# on it.

# %%
import pandas as pd

from robust_flatness.analysis.coefficients import coefficient
from robust_flatness.plotting import inputs, scatter, style
from robust_flatness.tables import aggregate

notebook = inputs("radius_ablation", globals().get("snakemake"))
variants = notebook.ours.counted
others = scatter.others_of(notebook, notebook.ours)
drawn = pd.concat([variants, others])
Y = "test_rloss_pgd"
RADII = {
    case: {xi: x for xi, x in aggregate.all_radii(drawn, case).items() if aggregate.has(drawn, x, Y)}
    for case in ("avg", "worst")
}


# %%
def printed_coefficients(case, xi):
    """The published coefficients at this radius, in words; "" where they were not printed."""
    published = notebook.printed.counted if notebook.printed else variants.iloc[:0]
    x = aggregate.all_radii(published, case).get(xi)
    if x is None:
        return ""
    r, rho = (coefficient(published[x], published[Y], kind) for kind in ("pearson", "spearman"))
    return f"published: r = {r:.2f}, ρ = {rho:.2f}"


def draw():
    shown = {case: radii for case, radii in RADII.items() if radii}
    named, beyond = [], False
    columns = max(len(radii) for radii in shown.values())
    shape = (len(shown), columns) if columns > 1 else (1, len(shown))
    figure, panels = style.grid(
        *shape, height=1.5, above=0.62, below=0.3, bottom=1.0, between=0.15, sharey=True
    )
    for row, (case, radii) in enumerate(shown.items()):
        for column, axes in enumerate(panels[row * columns : (row + 1) * columns]):
            if column >= len(radii):
                axes.set_axis_off()
                continue
            xi, x = [*radii.items()][column]
            rows = variants.dropna(subset=[x, Y])
            scatter.trend(axes, rows, x, Y)
            scatter.points(axes, rows, x, Y, size=9)
            everything = scatter.others(axes, rows, others, x, Y)
            found = scatter.coefficients(rows, x, Y, words=False)
            lines = [f"{'Average' if case == 'avg' else 'Worst'}-case, ξ = {xi:g}", ", ".join(found[:1])]
            lines += [", ".join(found[1:]), printed_coefficients(case, xi)]
            axes.set_title("\n".join(filter(None, lines)), fontsize=6)
            beyond |= scatter.fit(axes, everything, x, Y)
            scatter.apart(axes, notebook.ours.unlearnt, x, Y)
            axes.set_xlabel("flatness (lower is flatter)", fontsize=7)
            named.append((axes, x))
    style.name_grid(figure, "", "Test RLoss (lower is more robust)", bottom=1.0)
    note = f"{scatter.INTERVALS} At other radii than 0.5 and 0.003 the paper shows pictures only. "
    note += f"{scatter.BEYOND} " * beyond
    entries = style.handles(variants["family"], others["family"])
    style.legend_below(figure, entries, text=note + notebook.ours.note + scatter.others_note(notebook))
    for axes, x in named:
        scatter.label_points(axes, notebook, notebook.ours, x, Y)
    return figure


# %%
notebook.show(draw, "" if any(RADII.values()) else notebook.missing("avg_flatness_rloss", Y))
