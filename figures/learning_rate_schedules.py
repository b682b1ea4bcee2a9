# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Learning-rate schedules
#
# The learning rate over epochs of the baseline, of other initial rates, of constant rates and the late
# multi-step schedule, and of the cyclic schedules, which end after a fifth to four fifths of the baseline's
# epochs.

# %%
import numpy as np
from matplotlib.ticker import NullLocator

from robust_flatness.plotting import curves, inputs, looks, style

notebook = inputs("learning_rate_schedules", globals().get("snakemake"))
PANELS = {
    "Multi-step": ("at", "learning-rate-0.2", "learning-rate-0.1", "learning-rate-0.01"),
    "Constant and late": (
        *("constant-learning-rate-0.05", "constant-learning-rate-0.01"),
        *("constant-learning-rate-0.005", "late-multi-step"),
    ),
    "Cyclic": ("cyclic-1", "cyclic-2", "cyclic-3", "cyclic-4"),
}
COLORS = (style.BLACK, style.BLUE, style.VERMILLION, style.GREEN)
history = notebook.ours.history.dropna(subset=["learning_rate"])
known = {row["variant"]: row for row in notebook.ours.variants.to_dict("records")}


# %%
def schedule(layer, slug, steps):
    """Epochs as shares of the baseline's, and rates: each holds during its epoch, as steps; of a cycle,
    which changes at every update, the middles of epochs are joined."""
    rows = curves.of(layer.history, slug, "learning_rate")
    baseline = curves.of(layer.history, "at", "learning_rate")
    total = baseline["epochs"].iloc[0] if len(baseline) else rows["epochs"].max()
    ends, rates = (rows["epoch"].to_numpy() + 1) / total, rows["learning_rate"].to_numpy()
    if steps:
        return np.concatenate([[0.0], ends]), np.concatenate([rates[:1], rates])
    return ends - 0.5 / total, rates


def draw():
    shown = {name: slugs for name, slugs in PANELS.items() if history["variant"].isin(slugs).any()}
    figure, panels = style.panels(len(shown), height=2.3, room=0.4)
    for axes, (name, slugs) in zip(panels, shown.items(), strict=True):
        steps = name != "Cyclic"
        for layer in notebook.layers:
            for slug, color, width in zip(slugs, COLORS, (2.6, 2.0, 1.4, 0.8), strict=True):
                if slug not in set(history["variant"]):
                    continue
                look = {"drawstyle": "steps-pre"} if steps else {}
                if layer.beside:
                    look |= {"color": color, **style.PUBLISHED}
                else:
                    label = looks.name(known[slug]) if slug in known else looks.variant(slug)
                    look |= {"color": color, "linewidth": width, "label": label}
                axes.plot(*schedule(layer, slug, steps), **look)
        axes.set_title(name)
        axes.set(xlabel="Epoch (share of AT's)", xlim=(-0.03, 1.03))
        if steps:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_locator(NullLocator())
            low, high = axes.get_ylim()
            axes.set_ylim(low * (low / high) ** 0.4, high)  # room for the legend
        axes.legend(fontsize=5.5, loc="lower left" if steps else "upper left")
        if not steps:
            axes.set_ylim(0, 1.6 * axes.get_ylim()[1])
    panels[0].set_ylabel("Learning rate")
    note = "Schedules that coincide, as the cyclic ones do until each ends, differ in their widths."
    style.legend(figure, {}, note, notebook.beside("Dashed: published, CIFAR-10"))
    return figure


# %%
missing = notebook.missing("learning_rate", table="history")
trained = history["variant"].isin(sum(PANELS.values(), ())).any()
what, remedy = "the schedules' variants", "add them to the variants"
notebook.show(draw, missing or notebook.missing_unless(trained, what, remedy))
