# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Which measures go together
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
def ranks(variants):
    """Spearman's correlations of the measures; rows and columns of NaN where one was not taken."""
    return variants.reindex(columns=[*MEASURES]).corr("spearman").to_numpy()


def draw():
    ours, published = ranks(notebook.variants), ranks(notebook.published.variants)
    below = np.tril(np.ones_like(ours, dtype=bool), -1)
    count = len(notebook.variants)
    if count < FEWEST:
        ours = np.full_like(ours, np.nan)
    table = np.where(below, ours, published)
    np.fill_diagonal(table, np.nan)
    figure, (axes,) = style.panels(1, 1, height=3.4)
    names = [*MEASURES.values()]
    sns.heatmap(
        table, ax=axes, vmin=-1, vmax=1, cmap="vlag", annot=True, fmt=".2f", linewidths=0.5,
        annot_kws={"size": 6}, xticklabels=names, yticklabels=names, cbar_kws={"label": "Spearman's ρ"},
    )  # fmt: skip
    axes.grid(visible=False)
    below_text = f"n = {count}" if count >= FEWEST else f"{count} variants, {FEWEST} needed"
    text = f"Below the diagonal: {notebook.experiment}, {below_text}; above: published, n = 74."
    style.note(figure, text)
    return figure


# %%
missing = notebook.missing("avg_flatness_rloss", "test_rloss_pgd")
notebook.save(style.missing_page("Which measures go together", missing) if missing else draw())
