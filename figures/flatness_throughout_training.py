# %% [markdown]
# # Flatness throughout training

# %%
from robust_flatness.plotting import curves, inputs, style
from robust_flatness.plotting.curves import Curve
from robust_flatness.tables import aggregate

notebook = inputs("flatness_throughout_training", globals().get("snakemake"))
ours = curves.of(notebook.ours.series, "at")
# The radius of the paper's figures over epochs, where it was measured.
small = "worst_flatness_rloss_0.00075"
worst = small if aggregate.has(ours, small) else "worst_flatness_rloss"
PANELS = {
    "RLoss": [
        Curve("train_rloss_pgd", style.TRAIN, "training examples"),
        Curve("test_rloss_pgd", style.TEST, "test examples"),
    ],
    "Average-case flatness": [Curve("avg_flatness_rloss", style.GREEN)],
    "Worst-case flatness / last value": [Curve(worst, style.PURPLE)],
    "Largest eigenvalue / last value": [Curve("hessian_max", style.ORANGE)],
}


# %%
def relative(layer, variant):
    """Snapshots, with the measures whose size depends on the network divided by their last values."""
    rows = curves.of(layer.series, variant)
    for column in {worst, "hessian_max"} & {*rows.dropna(axis="columns", how="all")}:
        both = [name for name in (column, f"{column}_seed_sd") if name in rows]
        rows[both] /= rows[column].dropna().iloc[-1]
    return rows


def draw():
    panels = {title: lines for title, lines in PANELS.items() if aggregate.has(ours, lines[-1].column)}
    y = "lower is more robust or flatter"
    return curves.figure(notebook, panels, rows=relative, columns=2, height=1.9, y=y)


# %%
missing = notebook.missing("test_rloss_pgd", "avg_flatness_rloss", table="series")
what, remedy = "the baseline's snapshots", "add at to measures.series.variants"
notebook.show(draw, missing or notebook.missing_unless(len(ours), what, remedy))
