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
from robust_flatness import tables as results
from robust_flatness.analysis.correlation import coefficient
from robust_flatness.plotting import inputs, scatter, style

notebook = inputs("radius_ablation", globals().get("snakemake"))
variants, published = notebook.variants, notebook.published.variants
RADII = {case: results.all_radii(variants, case) for case in ("avg", "worst")}
Y = "test_rloss_pgd"


# %%
def printed_coefficients(case, xi):
    """The published coefficients at this radius, in words."""
    x = results.all_radii(published, case).get(xi)
    if x is None:
        return "a picture only"
    r, rho = (coefficient(published[x], published[Y], kind) for kind in ("pearson", "spearman"))
    return f"r = {r:.2f}, ρ = {rho:.2f}"


def draw():
    columns = max(len(radii) for radii in RADII.values())
    shape = (2, columns) if columns > 1 else (1, 2)
    figure, panels = style.grid(
        *shape, height=1.5, above=0.62, below=0.3, bottom=1.2, between=0.15, sharey=True
    )
    for row, (case, radii) in enumerate(RADII.items()):
        for column, axes in enumerate(panels[row * columns : (row + 1) * columns]):
            if column >= len(radii):
                axes.set_axis_off()
                continue
            xi, x = [*radii.items()][column]
            rows = variants.dropna(subset=[x, Y])
            scatter.trend(axes, rows, x, Y)
            scatter.points(axes, rows, x, Y, size=9)
            text = scatter.coefficients_text(rows, x, Y, compact=True)
            if not notebook.is_paper:
                text += f"\npublished: {printed_coefficients(case, xi)}"
            axes.set_title(f"{'Average' if case == 'avg' else 'Worst'}-case, ξ = {xi:g}\n{text}", fontsize=6)
            scatter.limits(axes, rows[x], rows[Y])
            axes.set_xlabel("flatness (lower is flatter)", fontsize=7)
    style.name_grid(figure, "", "Test RLoss (lower is more robust)", bottom=1.2)
    note = scatter.INTERVALS
    if notebook.is_paper:
        note += " The paper prints flatness at these radii only; others it shows as pictures."
    style.legend_below(figure, style.handles(variants["family"]), text=note)
    return figure


# %%
missing = notebook.missing("avg_flatness_rloss", "worst_flatness_rloss", Y)
notebook.save(style.missing_page("Radius ablation", missing) if missing else draw())
