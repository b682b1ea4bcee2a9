# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Learning-rate schedules
#
# The learning rate over epochs of the baseline, of other initial rates, of constant rates and the late
# multi-step schedule, and of the cyclic schedules, which end after a fifth to four fifths of the
# baseline's epochs.

# %%
from robust_flatness import tables as results
from robust_flatness.plotting import curves, inputs, style

notebook = inputs("learning_rate_schedules", globals().get("snakemake"))
history = notebook.history.dropna(subset=["learning_rate"])
PANELS = {
    "Multi-step": ("at", "learning-rate-0.2", "learning-rate-0.1", "learning-rate-0.01"),
    "Constant and late": (
        *("constant-learning-rate-0.05", "constant-learning-rate-0.01"),
        *("constant-learning-rate-0.005", "late-multi-step"),
    ),
    "Cyclic": ("cyclic-1", "cyclic-2", "cyclic-3", "cyclic-4"),
}
COLORS = (style.BLACK, style.BLUE, style.VERMILLION, style.GREEN)


# %%
def over_baseline(frame, slug):
    """A variant's rows, epochs counted as shares of the baseline's."""
    rows, baseline = curves.of(frame, slug), curves.of(frame, "at")
    epochs = baseline["epochs"].iloc[0] if len(baseline) else rows["epochs"].max()
    return (rows["epoch"] + 1) / epochs, rows["learning_rate"]


def draw():
    figure, panels = style.panels(1, 3, height=2.5, sharex=True)
    printed = notebook.published.history.dropna(subset=["learning_rate"])
    for axes, (name, slugs) in zip(panels, PANELS.items(), strict=True):
        for slug, color, width in zip(slugs, COLORS, (2.4, 1.9, 1.4, 0.9), strict=True):
            if slug in set(history["variant"]):
                label = results.catalogue()[slug].label
                axes.plot(*over_baseline(history, slug), color=color, linewidth=width, label=label)
            if not notebook.is_paper:
                axes.plot(*over_baseline(printed, slug), **{**style.PUBLISHED, "color": color})
        axes.set_title(name)
        axes.set(xlabel="Epoch (share of the baseline's)")
        if name != "Cyclic":
            axes.set_yscale("log")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=5.5, loc="lower left" if name != "Cyclic" else "upper left")
    panels[2].set_ylim(0, 1.75 * panels[2].get_ylim()[1])  # room for the legend
    panels[0].set_ylabel("Learning rate")
    if not notebook.is_paper:
        style.note(figure, "Dashed: published, CIFAR-10.")
    return figure


# %%
named = history["variant"].isin(sum(PANELS.values(), ())).any()
missing = notebook.missing("learning_rate", table="history") or "Missing: the schedules' variants."
notebook.save(draw() if named else style.missing_page("Learning-rate schedules", missing))
