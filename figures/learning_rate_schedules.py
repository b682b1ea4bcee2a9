# %% [markdown]
# # Learning-rate schedules

# %%
from robust_flatness.plotting import curves, inputs, looks, style

notebook = inputs("learning_rate_schedules", globals().get("snakemake"))
MULTI_STEP = ("at", "learning-rate-0.2", "learning-rate-0.1", "learning-rate-0.01")
CONSTANT = ("constant-learning-rate-0.05", "constant-learning-rate-0.01", "constant-learning-rate-0.005")
PANELS = {
    "Multi-step": MULTI_STEP,
    "Constant and late": (*CONSTANT, "late-multi-step"),
    "Cyclic": ("cyclic-4", "cyclic-3", "cyclic-2", "cyclic-1"),
}
COLORS = (style.BLACK, style.BLUE, style.VERMILLION, style.GREEN)
history = notebook.ours.history.dropna(subset=["learning_rate"])
known = {row["variant"]: row for row in notebook.ours.variants.to_dict("records")}
trained = {name: [slug for slug in slugs if slug in known] for name, slugs in PANELS.items()}


# %%
def draw():
    shown = {name: slugs for name, slugs in trained.items() if history["variant"].isin(slugs).any()}
    names = {"x": "Epoch (share of AT's)", "y": "Learning rate"}
    figure, panels = style.panels(len(shown), height=2.4, room=0, **names)
    epochs = curves.of(history, "at")["epochs"]
    for axes, (name, slugs) in zip(panels, shown.items(), strict=True):
        for slug, color, width in zip(slugs, COLORS, (2.8, 2.1, 1.5, 0.9), strict=False):
            rows = curves.of(history, slug)
            look = {"color": color, "linewidth": width, "label": looks.name(known[slug])}
            # a row has the rate of its epoch's first update
            step, ends = ("default", 0) if name == "Cyclic" else ("steps-pre", 1)
            shares = (rows["epoch"] + ends) / (epochs if len(epochs) else rows["epochs"]).iloc[0]
            axes.plot(shares, rows["learning_rate"], drawstyle=step, **look)
        axes.set(title=name, xlim=(0, 1.03), yscale="linear" if name == "Cyclic" else "log")
        axes.yaxis.set_major_formatter("{x:g}")
        low, high = axes.get_ylim()  # with room for the legend
        axes.set_ylim((0, 1.6 * high) if name == "Cyclic" else (low * (low / high) ** 0.5, high))
        axes.legend(fontsize=5.5, loc="upper left" if name == "Cyclic" else "lower left")
    return figure


# %%
missing = notebook.missing("learning_rate", table="history")
what, remedy = "the schedules' variants", "add them to the variants"
notebook.show(draw, missing or notebook.missing_unless(any(trained.values()), what, remedy))
