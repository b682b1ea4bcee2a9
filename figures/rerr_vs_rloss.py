# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Robust error against robust loss
#
# RLoss is unbounded, RErr is not. At RLoss of -ln(1/K) the attacked network does as badly as a uniform
# guess among K classes; a loss above it means confident mistakes.
#
# Claim: RErr against RLoss bends there. Two linear fits, split at that value; above it, a lower RLoss
# hardly lowers RErr. Any concave cloud gives such slopes, so a hinge is fitted too, whose break is free: grey
# is the interval of its break.

# %%
from robust_flatness.analysis.evidence import kink
from robust_flatness.analysis.hinge import fitted
from robust_flatness.plotting import inputs, scatter, style
from robust_flatness.tables import aggregate

notebook = inputs("rerr_vs_rloss", globals().get("snakemake"))
X = "test_rloss_pgd"


# %%
def bent(axes, layer, extra):
    """Points, the bend and a fit on each side of it."""
    variants = layer.counted
    y, bend = aggregate.robust_error_column(layer.models), kink(variants)
    rows = variants.dropna(subset=[X, y])
    axes.axvline(bend, color="black", linewidth=0.8, linestyle=":")
    hinge = fitted(rows, y)
    if hinge is not None:
        axes.axvspan(*hinge.at_interval, color="#ececec", linewidth=0, zorder=0)
    slopes = []
    for side in (rows[rows[X] < bend], rows[rows[X] >= bend]):
        slope = scatter.trend(axes, side, X, y)
        slopes.append("-" if slope is None else f"{slope:z.1f}")
    scatter.points(axes, rows, X, y, layer.beside)
    everything = scatter.others(axes, rows, extra, X, y)
    scatter.name_axes(axes, X, y)
    scatter.fit(axes, everything, X, y)
    scatter.apart(axes, layer.unlearnt, X, y)
    lines = [f"slope {slopes[0]} below, {slopes[1]} above -ln(1/K) = {bend:.2f} (dotted)"]
    if hinge is not None:
        low, high = hinge.at_interval
        lines.append(f"a fitted hinge breaks at {hinge.at:.1f}, 95 % interval {low:.1f} to {high:.1f} (grey)")
    lines.append(", ".join(scatter.coefficients(rows, X, y, words=False)))
    axes.set_title("\n".join([layer.title()] * bool(notebook.printed) + lines), fontsize=6.5)


def draw():
    single = notebook.printed is None
    figure, panels = style.panels(1, len(notebook.layers), height=3.4 if single else 3.9)
    extra = {layer: scatter.others_of(notebook, layer, robustbench=True) for layer in notebook.layers}
    for axes, layer in zip(panels, notebook.layers, strict=True):
        bent(axes, layer, extra[layer])
    families = [name for layer in notebook.layers for name in layer.variants["family"]]
    entries = style.handles(families, [name for frame in extra.values() for name in frame["family"]])
    note = f"{scatter.INTERVALS} {scatter.comparison_note(notebook, X)} {notebook.ours.note}".strip()
    note += scatter.others_note(notebook)
    if single:
        style.legend_beside(figure, entries)
        style.note(figure, note)
    else:
        style.legend_below(figure, entries, text=note)
    for axes, layer in zip(panels, notebook.layers, strict=True):
        y = aggregate.robust_error_column(layer.models)
        scatter.label_points(axes, notebook, layer, X, y, robustbench=True)
    return figure


# %%
notebook.show(draw, notebook.missing(X, aggregate.robust_error_column(notebook.ours.models)))
