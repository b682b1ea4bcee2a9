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
# hardly lowers RErr.

# %%
import pandas as pd

from robust_flatness import tables as results
from robust_flatness.analysis.evidence import kink
from robust_flatness.plotting import inputs, scatter, style

notebook = inputs("rerr_vs_rloss", globals().get("snakemake"))
X = "test_rloss_pgd"


# %%
def bent(axes, variants, title, hollow=False, extra=None):
    """Points, the bend and a fit on each side of it."""
    y, bend = results.robust_error_column(variants), kink(variants)
    rows = variants.dropna(subset=[X, y])
    axes.axvline(bend, color="black", linewidth=0.8, linestyle=":")
    slopes = []
    for side in (rows[rows[X] < bend], rows[rows[X] >= bend]):
        slope = scatter.trend(axes, side, X, y)
        slopes.append("-" if slope is None else f"{slope:.1f}")
    scatter.points(axes, rows, X, y, hollow)
    if extra is not None:
        scatter.points(axes, extra, X, y, hollow=True)
    scatter.name_axes(axes, X, y)
    text = f"slope {slopes[0]} below, {slopes[1]} above {bend:.2f}"
    text += "\n" + scatter.coefficients_text(rows, X, y, compact=True).replace("\n", "; ")
    axes.set_title(f"{title}\n{text}".strip(), fontsize=7)
    everything = rows if extra is None else pd.concat([rows, extra])
    scatter.limits(axes, everything[X], everything[y])


def draw():
    theirs = notebook.published
    figure, panels = style.panels(1, 1 if notebook.is_paper else 2, height=4.2)
    if notebook.is_paper:
        bent(panels[0], notebook.variants, "", extra=theirs.robustbench)
        note = scatter.INTERVALS
    else:
        bent(panels[0], notebook.variants, f"{notebook.experiment} ({len(notebook.variants)} variants)")
        bent(panels[1], theirs.variants, "published, CIFAR-10", hollow=True, extra=theirs.robustbench)
        note = f"{scatter.INTERVALS} {scatter.comparison_note(notebook, X)}"
    families = {*notebook.variants["family"], *theirs.variants["family"], results.ROBUSTBENCH}
    style.legend_below(figure, style.handles(families), text=note)
    return figure


# %%
missing = notebook.missing(X, results.robust_error_column(notebook.variants))
notebook.save(style.missing_page("RErr against RLoss", missing) if missing else draw())
