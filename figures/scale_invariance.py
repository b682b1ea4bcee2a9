# %% [markdown]
# # Scale invariance

# %%
from robust_flatness.plotting import inputs, style

notebook = inputs("scale_invariance", globals().get("snakemake"))
# Label, marker, place beside the measure's and line of each scaled model.
SCALES = {"at-scaled-0.5": ("× 0.5", "v", -0.15, "--"), "at-scaled-2": ("× 2", "^", 0.15, ":")}
MEASURES = {
    "avg_flatness_rloss": "average-case\nflatness",
    "worst_flatness_rloss": "worst-case\nflatness",
    "hessian_max": "largest\neigenvalue",
}


# %%
def measures(axes):
    """Draw each measure relative to the unscaled model's."""
    for layer in notebook.layers:
        models = layer.scaled.set_index("variant").reindex(index=["at", *SCALES], columns=[*MEASURES])
        for slug, (scale, marker, place, _) in SCALES.items():
            places = [index + place * (1.6 if layer.beside else 1) for index in range(len(MEASURES))]
            ratios = (models.loc[slug] / models.loc["at"]).to_numpy(float)
            look = {"facecolors": "none", "edgecolors": style.GREY} if layer.beside else {"color": "black"}
            label = f"convolutions {scale}{', published' * layer.beside}"
            axes.scatter(places, ratios, marker=marker, s=32, zorder=3, label=label, **look)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_yscale("log", base=2)
    axes.set_yticks([1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8], ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    axes.set_xticks(range(len(MEASURES)), [*MEASURES.values()])
    axes.set(xlim=(-0.5, len(MEASURES) - 0.5), ylim=(1 / 8, 8), ylabel="relative to the unscaled model")
    axes.legend(loc="lower left")


def landscapes(axes, rows):
    """Draw RLoss along random directions; the lines lie on each other if nothing changes."""
    looks = {"at": ("unscaled", "-", 3, style.LIGHT)}
    looks |= {
        slug: (f"convolutions {scale}", line, 1.2, "black") for slug, (scale, *_, line) in SCALES.items()
    }
    for slug, (label, line, width, color) in looks.items():
        part = rows[rows["variant"] == slug].sort_values("s")
        axes.plot(part["s"], part["rloss"], line, color=color, linewidth=width, label=label)
    axes.set(xlabel="step s along random directions", ylabel="RLoss")
    axes.margins(y=0.3)
    axes.legend(loc="upper center")


def draw():
    rows = notebook.ours.landscape
    rows = rows[(rows["direction"] == "random") & (rows["normalisation"] == "layer")]
    rows = rows[rows["variant"].isin(["at", *SCALES])]
    figure, panels = style.panels(1 if rows.empty else 2, height=2.4, room=0.2)
    measures(panels[0])
    if len(rows):
        landscapes(panels[1], rows)
    return figure


# %%
lacking = [slug for slug in ("at", *SCALES) if slug not in set(notebook.ours.scaled["variant"])]
remedy = "add them to the experiment's variants"
missing = notebook.missing_unless(not lacking, ", ".join(lacking), remedy)
notebook.show(draw, missing or notebook.missing("avg_flatness_rloss"))
