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
# together with test RLoss; so does the eigenvalue, which is drawn relative to its last value.

# %%
from robust_flatness import tables as results
from robust_flatness.plotting import curves, inputs, style

notebook = inputs("flatness_throughout_training", globals().get("snakemake"))
ours, theirs = curves.of(notebook.series, "at"), curves.of(notebook.published.series, "at")

# The radius of the paper's per-epoch figures, where it was measured.
worst = next(
    (name for name in ("worst_flatness_rloss_0.00075", "worst_flatness_rloss") if results.has(ours, name)),
    "worst_flatness_rloss",
)
PANELS = [
    ("RLoss", {"train_rloss_pgd": ("train", style.TRAIN), "test_rloss_pgd": ("test", style.TEST)}),
    ("Average-case flatness", {"avg_flatness_rloss": ("average-case flatness", style.GREEN)}),
    ("Worst-case flatness", {worst: ("worst-case flatness", style.PURPLE)}),
    ("Largest eigenvalue / last", {"relative_hessian": ("largest Hessian eigenvalue", style.ORANGE)}),
]


# %%
def relative(rows):
    """The eigenvalue relative to its value at the end of training."""
    known = rows["hessian_max"].dropna()
    return rows.assign(relative_hessian=rows["hessian_max"] / (known.iloc[-1] if len(known) else 1.0))


def draw():
    figure, panels = style.panels(2, 2, height=4.2, sharex=True)
    for axes, (name, columns) in zip(panels, PANELS, strict=True):
        for column, (label, color) in columns.items():
            if not results.has(relative(ours), column):
                style.message(axes, f"not measured: {label}")
                continue
            curves.draw(axes, relative(ours), column, label=label, color=color, marker="o", markersize=2.5)
            if not notebook.is_paper:
                curves.draw(axes, relative(theirs), column, **{**style.PUBLISHED, "color": color})
            curves.mark_drops(axes, curves.drops(notebook.history))
            axes.set_ylabel(f"{name}\n(lower is flatter)" if "flatness" in name else name)
    for axes in panels[2:]:
        axes.set_xlabel("Epoch (share of training)")
    last = ours["hessian_max"].dropna()
    if len(last):
        panels[3].set_title(f"last value: {last.iloc[-1]:.4g}")
    panels[2].set_title("" if worst.endswith("rloss") else "ξ = 0.00075")
    if not notebook.is_paper:
        panels[0].plot([], [], **style.PUBLISHED, label="published, CIFAR-10")
    entries = style.entries(panels)
    note = "" if notebook.same_data else "Published: another dataset; compare the course, not the values."
    style.legend_below(figure, entries, columns=6, text=note)
    return figure


# %%
missing = notebook.missing("test_rloss_pgd", "avg_flatness_rloss", table="series")
unmeasured = missing or ours.empty
notebook.save(style.missing_page("Flatness throughout training", missing) if unmeasured else draw())
