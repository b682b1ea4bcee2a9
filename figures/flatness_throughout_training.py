# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Flatness throughout training
#
# RLoss of adversarial training (AT), its average- and worst-case flatness in RLoss and the largest
# eigenvalue of the Hessian (of the clean loss) at every snapshot.
#
# The paper: overfitting is sharpening. After the first drop of the learning rate, both flatness measures
# rise together with test RLoss; so does the eigenvalue. It and worst-case flatness, whose sizes depend on
# the network and on the budget of the attack, are drawn relative to their last values.

# %%
from robust_flatness.plotting import curves, inputs, style
from robust_flatness.tables import aggregate

notebook = inputs("flatness_throughout_training", globals().get("snakemake"))
at = {layer: curves.of(layer.series, "at") for layer in notebook.layers}
ours = at[notebook.ours]
# The radius of the paper's figures over epochs, where it was measured.
small = "worst_flatness_rloss_0.00075"
worst = small if aggregate.has(ours, small) else "worst_flatness_rloss"
PANELS = {
    "RLoss": {"train_rloss_pgd": ("training", style.TRAIN), "test_rloss_pgd": ("test", style.TEST)},
    "Average-case flatness": {"avg_flatness_rloss": ("average-case flatness", style.GREEN)},
    "Worst-case flatness": {worst: ("worst-case flatness", style.PURPLE)},
    "Largest eigenvalue": {"hessian_max": ("largest Hessian eigenvalue", style.ORANGE)},
}
RELATIVE = (worst, "hessian_max")


# %%
def curve(axes, layer, column, label, color):
    """Draw a measure over epochs; returns in words the last value by which it is divided, if it is."""
    rows, words = at[layer], ""
    if column in RELATIVE and aggregate.has(rows, column):
        last = rows[column].dropna().iloc[-1]
        relative = [name for name in (column, f"{column}_seed_sd") if name in rows]
        rows = rows.assign(**{name: rows[name] / last for name in relative})
        words = f"{'published ' * layer.beside}{last:.3g}"
    curves.draw(axes, layer, rows, column, color, label, marker="o", markersize=2.5)
    return words


def draw():
    shown = {name: lines for name, lines in PANELS.items() if any(aggregate.has(ours, c) for c in lines)}
    columns = min(2, len(shown))
    figure, panels = style.panels(len(shown), columns, height=1.9, sharex=True)
    for axes, (name, lines) in zip(panels, shown.items(), strict=True):
        lasts = [curve(axes, layer, c, *look) for c, look in lines.items() for layer in notebook.layers]
        lasts = ", ".join(filter(None, lasts))
        curves.mark_drops(axes, notebook.ours.history)
        axes.set_title(f"{name} / last value ({lasts})" if lasts else name)
        axes.set_ylabel("lower is more robust" if name == "RLoss" else "lower is flatter")
    style.name_bottom(panels, columns, curves.EPOCH_NAME)
    text = notebook.beside("", "Compare trends with the published curves, not values")
    text = text, notebook.ours.spread("Bands"), curves.scale(panels)
    style.legend(figure, style.entries(panels) | curves.published(panels), *text)
    return figure


# %%
missing = notebook.missing("test_rloss_pgd", "avg_flatness_rloss", table="series")
what, remedy = "the baseline's snapshots", "add at to measures.series.variants"
notebook.show(draw, missing or notebook.missing_unless(len(ours), what, remedy))
