# %% [markdown]
# # Robust error against robust loss

# %%
from functools import partial

from robust_flatness.analysis.hinge import fitted, kink
from robust_flatness.plotting import inputs, scatter
from robust_flatness.tables import aggregate

notebook = inputs("rerr_vs_rloss", globals().get("snakemake"))
X = "test_rloss_pgd"


# %%
def bent(axes, layer):
    """Draw the points, the bend and a fit on each side of it; returns labels."""
    y, bend = aggregate.robust_error_column(layer.models), kink(layer.counted)
    rows = layer.counted.dropna(subset=[X, y])
    axes.axvline(bend, color="black", linewidth=0.8, linestyle=":")
    slopes = [scatter.trend(axes, side, X, y) for side in (rows[rows[X] < bend], rows[rows[X] >= bend])]
    below, above = ("-" if slope is None else f"{slope:z.1f}" for slope in slopes)
    lines = [layer.name] if notebook.printed else []
    lines += [f"slope {below} below, {above} above ln K = {bend:.2f} (dotted)"]
    if hinge := fitted(rows, y):
        low, high = hinge["break"].interval
        axes.axvspan(low, high, color="#ececec", linewidth=0, zorder=0)
        lines.append(f"fitted break {hinge['break'].value:.1f} [{low:.1f}, {high:.1f}] (grey)")
    return scatter.panel(axes, layer, X, y, "\n".join(lines), headline=True, line=False)


def draw():
    cells = [partial(bent, layer=layer) for layer in notebook.layers]
    return scatter.figure(cells, scatter.notes(notebook), height=3.1)


# %%
rerr = aggregate.robust_error_column(notebook.ours.models)
notebook.show(draw, notebook.missing(X, rerr))
