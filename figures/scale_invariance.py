# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Scale invariance
#
# The baseline with all convolutions multiplied by 0.5 and 2, the batch norms' running statistics with
# them: the same function. Left: each measure relative to the unscaled model's. Right: RLoss along random
# directions, per layer.
#
# Claim: the flatness measures do not change, since the neighbourhood scales with the weights; the
# largest eigenvalue of the Hessian does.

# %%
import numpy as np

from robust_flatness.plotting import curves, inputs, style

notebook = inputs("scale_invariance", globals().get("snakemake"))

SCALES = {"at-scaled-0.5": "× 0.5", "at-scaled-2": "× 2"}
MEASURES = {
    "avg_flatness_rloss": "average-case\nflatness",
    "worst_flatness_rloss": "worst-case\nflatness",
    "hessian_max": "largest\neigenvalue",
}


# %%
def ratios(layer, slug):
    """A scaled model's measures over the baseline's."""
    models = layer.scaled.set_index("variant").reindex(index=["at", slug], columns=[*MEASURES])
    return (models.loc[slug] / models.loc["at"]).to_numpy(float)


def measures(axes):
    """Each measure relative to the unscaled model's."""
    places = np.arange(len(MEASURES))
    for slug, marker, shift in zip(SCALES, "v^", (-0.12, 0.12), strict=True):
        for layer in notebook.layers:
            where = places + 1.5 * shift if layer.beside else places + shift
            look = {"facecolors": "none", "edgecolors": style.GREY} if layer.beside else {"color": "black"}
            axes.scatter(where, ratios(layer, slug), marker=marker, s=32, zorder=3, **look)
        axes.scatter([], [], marker=marker, color="black", label=f"convolutions {SCALES[slug]}")
    if notebook.printed:
        axes.scatter([], [], facecolors="none", edgecolors=style.GREY, label=notebook.printed.name)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_yscale("log", base=2)
    axes.set_ylim(1 / 8, 8)
    axes.set_yticks([1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8], ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    axes.set_xticks(places, [*MEASURES.values()])
    axes.set_xlim(-0.5, len(MEASURES) - 0.5)
    axes.set_ylabel("relative to the unscaled model")
    axes.legend(loc="lower left", fontsize=6.5)


def landscapes(axes, rows):
    """RLoss along random directions; models whose curves coincide are drawn once."""
    names = {"at": "unscaled", **{slug: f"convolutions {scale}" for slug, scale in SCALES.items()}}
    parts = {slug: rows[rows["variant"] == slug].sort_values("s") for slug in names}
    found = {slug: (part["s"].to_numpy(), part["rloss"].to_numpy()) for slug, part in parts.items()}
    groups = curves.coinciding(found)
    for (slug, group), line in zip(groups.items(), ("-", "--", ":"), strict=False):
        label = ", ".join(names[name] for name in group) + " (coincide)" * (len(group) > 1)
        axes.plot(*found[slug], color="black", linestyle=line, label=label)
    axes.set(xlabel="step s along random directions", ylabel="RLoss")
    axes.margins(y=0.2)
    axes.legend(fontsize=6.5, loc="upper center")


def draw():
    rows = notebook.ours.landscape
    rows = rows[
        rows["variant"].isin(["at", *SCALES])
        & (rows["direction"] == "random")
        & (rows["normalisation"] == "layer")
    ]
    figure, panels = style.panels(1, 1 if rows.empty else 2, height=2.7)
    measures(panels[0])
    if len(rows):
        landscapes(panels[1], rows)
    return figure


# %%
lacking = [slug for slug in ("at", *SCALES) if slug not in set(notebook.ours.scaled["variant"])]
missing = notebook.say_missing(", ".join(lacking), "add them to the experiment's variants") if lacking else ""
notebook.show(draw, missing or notebook.missing("avg_flatness_rloss"))
