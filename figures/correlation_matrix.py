# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Correlations between measures
#
# Spearman's rank correlation of robustness, generalisation and flatness over the variants, every measure
# against every other: below the diagonal on this experiment, above it as published.

# %%
import numpy as np
import seaborn as sns

from robust_flatness.plotting import inputs, style

notebook = inputs("correlation_matrix", globals().get("snakemake"))
FEWEST = 6  # variants; fewer are no correlation
MEASURES = {
    "test_rloss_pgd": "RLoss",
    "test_rerr_aa": "RErr",
    "test_ce": "CE",
    "rloss_gap": "RLoss, test - train",
    "avg_flatness_rloss": "average flatness, RLoss",
    "worst_flatness_rloss": "worst flatness, RLoss",
    "avg_flatness_ce": "average flatness, CE",
    "worst_flatness_ce": "worst flatness, CE",
}


# %%
def ranks(layer):
    """Spearman's correlations of the measures; rows and columns of NaN where one was not taken."""
    table = layer.counted.reindex(columns=[*MEASURES]).corr("spearman").to_numpy()
    return table if len(layer.counted) >= FEWEST else np.full_like(table, np.nan)


def draw():
    below = np.tril(np.ones((len(MEASURES),) * 2, dtype=bool), -1)
    ours, other = notebook.ours, notebook.layers[-1]
    table = np.where(below, ranks(ours), ranks(other))
    np.fill_diagonal(table, np.nan)
    figure, (axes,) = style.panels(height=3.0, room=0.4)
    names = [*MEASURES.values()]
    sns.heatmap(
        table, ax=axes, vmin=-1, vmax=1, cmap="vlag", annot=True, fmt=".2f", linewidths=0.5,
        annot_kws={"size": 6}, xticklabels=names, yticklabels=names, cbar_kws={"label": "Spearman's ρ"},
    )  # fmt: skip
    axes.grid(visible=False)
    sides = [
        f"{place} {layer.name}, n = {len(layer.counted)}"
        for place, layer in (("below the diagonal:", ours), ("above:", other))
    ]
    text = "; ".join(sides) if notebook.printed else f"{ours.name}, n = {len(ours.counted)}"
    few = f" Fewer than {FEWEST} variants have no coefficient." * (len(ours.counted) < FEWEST)
    style.legend(figure, {}, f"{text[0].upper()}{text[1:]}.{few}", ours.apart)
    return figure


# %%
notebook.show(draw, notebook.missing("avg_flatness_rloss", "test_rloss_pgd"))
