# %% [markdown]
# # Correlations between measures

# %%
import numpy as np
import seaborn as sns

from robust_flatness.analysis.comparison import FEWEST
from robust_flatness.plotting import inputs, style

notebook = inputs("correlation_matrix", globals().get("snakemake"))
MEASURES = {
    "test_rloss_pgd": "RLoss",
    "test_rerr_aa": "RErr",
    "test_ce": "CE",
    "rloss_gap": "RLoss, test minus train",
    "avg_flatness_rloss": "average-case flatness in RLoss",
    "worst_flatness_rloss": "worst-case flatness in RLoss",
    "avg_flatness_ce": "average-case flatness in CE",
    "worst_flatness_ce": "worst-case flatness in CE",
}


# %%
def draw():
    ours, other = notebook.ours.counted, notebook.layers[-1].counted
    ranks = [frame.reindex(columns=[*MEASURES]).corr("spearman").to_numpy() for frame in (ours, other)]
    table = np.tril(ranks[0], -1) + np.triu(ranks[1], 1) + np.diag([np.nan] * len(MEASURES))
    figure, (axes,) = style.panels(height=3.2, room=0.3)
    names = [*MEASURES.values()]
    sns.heatmap(
        table, ax=axes, vmin=-1, vmax=1, cmap="vlag", annot=True, fmt=".2f", linewidths=0.5,
        annot_kws={"size": 6}, xticklabels=names, yticklabels=names, cbar_kws={"label": "Spearman's ρ"},
    )  # fmt: skip
    axes.set_xticks(axes.get_xticks(), names, rotation=30, ha="right")
    axes.grid(visible=False)
    text = f"{notebook.experiment}, n = {len(ours)}"
    text = f"Below the diagonal: {text}; above: published, n = {len(other)}" if notebook.printed else text
    style.legend(figure, {}, f"{text}.", notebook.ours.apart())
    return figure


# %%
what = f"{FEWEST} variants that have learnt"
missing = notebook.missing_unless(len(notebook.ours.counted) >= FEWEST, what, "train more")
notebook.show(draw, missing or notebook.missing("avg_flatness_rloss", "test_rloss_pgd"))
