# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Flatness throughout training
#
# The AT baseline's RLoss, its average- and worst-case flatness in RLoss and the largest eigenvalue of
# the Hessian (of the clean loss) at every snapshot.
#
# Claim: overfitting is sharpening. After the first learning-rate drop, both flatness measures rise
# together with test RLoss; so does the eigenvalue. It and worst-case flatness, whose size depends on the
# network and on the budget of the attack, are drawn relative to their last values.

# %%
from robust_flatness.plotting import curves, inputs, style
from robust_flatness.tables import aggregate

notebook = inputs("flatness_throughout_training", globals().get("snakemake"))
at = {layer: curves.of(layer.series, "at") for layer in notebook.layers}
ours = at[notebook.ours]

# The radius of the paper's per-epoch figures, where it was measured.
worst = next(
    (name for name in ("worst_flatness_rloss_0.00075", "worst_flatness_rloss") if aggregate.has(ours, name)),
    "worst_flatness_rloss",
)
FLATTER = "lower is flatter"
PANELS = {
    "RLoss": {"train_rloss_pgd": ("training", style.TRAIN), "test_rloss_pgd": ("test", style.TEST)},
    f"Average-case flatness\n({FLATTER})": {"avg_flatness_rloss": ("average-case flatness", style.GREEN)},
    f"Worst-case flatness / last\n({FLATTER})": {worst: ("worst-case flatness", style.PURPLE)},
    f"Largest eigenvalue / last\n({FLATTER})": {"hessian_max": ("largest Hessian eigenvalue", style.ORANGE)},
}
RELATIVE = (worst, "hessian_max")


# %%
def last(rows, column):
    """A column's value at the end of training."""
    return rows[column].dropna().iloc[-1]


def draw():
    shown = {name: lines for name, lines in PANELS.items() if any(aggregate.has(ours, c) for c in lines)}
    columns = 2 if len(shown) > 1 else 1
    rows = -(-len(shown) // columns)
    figure, panels = style.panels(rows, columns, height=1.9 * rows + 0.4, sharex=True)
    for axes, (name, lines) in zip(panels, shown.items(), strict=False):
        for column, (label, color) in lines.items():
            for layer, rows in at.items():
                if column in RELATIVE and aggregate.has(rows, column):
                    relative = [name for name in (column, f"{column}_seed_sd") if name in rows]
                    rows = rows.assign(**{name: rows[name] / last(rows, column) for name in relative})
                curves.draw(axes, layer, rows, column, label=label, color=color, marker="o", markersize=2.5)
            if column in RELATIVE:
                radius = " (ξ = 0.00075)" if column.endswith("00075") else ""
                values = [
                    f"{'published ' * layer.beside}{last(rows, column):.4g}"
                    for layer, rows in at.items()
                    if aggregate.has(rows, column)
                ]
                axes.set_title(f"last value{radius}: {', '.join(values)}", fontsize=7)
        curves.mark_drops(axes, curves.drops(notebook.ours.history))
        axes.set_ylabel(name)
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    beyond = curves.scale(panels[: len(shown)])
    for axes in panels[max(0, len(shown) - columns) : len(shown)]:
        axes.set_xlabel("Epoch (share of training)")
        axes.tick_params(labelbottom=True)
    note = notebook.beside("Dashed: published, CIFAR-10", "compare the course, not the values")
    note = " ".join(filter(None, [note, notebook.ours.spread("Bands"), curves.BEYOND * beyond]))
    style.legend_below(figure, style.entries(panels), 6, note)
    return figure


# %%
missing = notebook.missing("test_rloss_pgd", "avg_flatness_rloss", table="series")
if ours.empty:
    missing = missing or notebook.say_missing(
        "the baseline's snapshots", "add at to measures.series.variants"
    )
notebook.show(draw, missing)
