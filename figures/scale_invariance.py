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

from robust_flatness import tables as results
from robust_flatness.plotting import inputs, style

notebook = inputs("scale_invariance", globals().get("snakemake"))
ours = results.variants_at(notebook.models, derived=True).set_index("variant")
theirs = results.variants_at(notebook.published.tables.models, derived=True).set_index("variant")

SCALES = {"at-scaled-0.5": "× 0.5", "at-scaled-2": "× 2"}
MEASURES = {
    "avg_flatness_rloss": ("average-case\nflatness", style.GREEN),
    "worst_flatness_rloss": ("worst-case\nflatness", style.PURPLE),
    "hessian_max": ("largest\neigenvalue", style.ORANGE),
}


# %%
def ratios(models, slug):
    """A scaled model's measures over the baseline's."""
    if slug not in models.index or "at" not in models.index:
        return [np.nan] * len(MEASURES)
    return [models.at[slug, name] / models.at["at", name] if name in models else np.nan for name in MEASURES]


def draw():
    landscape = notebook.tables.landscape
    curves = landscape[
        landscape["variant"].isin(["at", *SCALES])
        & (landscape["direction"] == "random")
        & (landscape["normalisation"] == "layer")
        & (landscape["checkpoint"] == "last")
    ]
    figure, panels = style.panels(1, 1 if curves.empty else 2, height=2.9)
    places = np.arange(len(MEASURES))
    for slug, marker, shift in zip(SCALES, "v^", (-0.12, 0.12), strict=True):
        drawn = [(ours, "black", "black", 0.0)]
        if not notebook.is_paper:
            drawn.append((theirs, "none", style.GREY, 0.06))
        for models, face, edge, nudge in drawn:
            where = places + shift + np.sign(shift) * nudge
            panels[0].scatter(
                where, ratios(models, slug), marker=marker, facecolors=face, edgecolors=edge, s=32, zorder=3
            )
        panels[0].scatter([], [], marker=marker, color="black", label=f"convolutions {SCALES[slug]}")
    if not notebook.is_paper:
        panels[0].scatter([], [], facecolors="none", edgecolors=style.GREY, label="published, CIFAR-10")
    panels[0].axhline(1, color="black", linewidth=0.8)
    panels[0].set_yscale("log", base=2)
    panels[0].set_ylim(1 / 8, 8)
    panels[0].set_yticks([1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8], ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    panels[0].set_xticks(places, [label for label, _ in MEASURES.values()])
    panels[0].set_xlim(-0.5, len(MEASURES) - 0.5)
    panels[0].set_ylabel("relative to the unscaled model")
    panels[0].legend(loc="lower left", fontsize=6.5)
    if curves.empty:
        style.note(figure, "Loss landscapes of these models were not measured.")
        return figure
    for (slug, label), line in zip({"at": "unscaled", **SCALES}.items(), ("-", "--", ":"), strict=True):
        rows = results.over_seeds(curves[curves["variant"] == slug], ("s",)).sort_values("s")
        panels[1].plot(rows["s"], rows["rloss"], color="black", linestyle=line, label=label)
    panels[1].set(xlabel="step s along random directions", ylabel="RLoss")
    panels[1].legend()
    return figure


# %%
lacking = [slug for slug in ("at", *SCALES) if slug not in ours.index]
missing = (
    f"Missing: {', '.join(lacking)}.\nTo get it: add them to the experiment's variants." if lacking else ""
)
missing = missing or notebook.missing("avg_flatness_rloss")
notebook.save(style.missing_page("Scale invariance", missing) if missing else draw())
