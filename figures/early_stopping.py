# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Early stopping finds flatter minima
#
# An arrow per variant, from its last to its early-stopped checkpoint. Coloured where early stopping
# lowers RLoss.
#
# Claim: where early stopping improves robustness, it finds a flatter point on the same trajectory: the
# arrows point down and to the left.

# %%
from robust_flatness.analysis.evidence import early_stopping_pairs
from robust_flatness.plotting import inputs, looks, scatter, style

notebook = inputs("early_stopping", globals().get("snakemake"))
X, Y = "avg_flatness_rloss", "test_rloss_pgd"
ours = early_stopping_pairs(notebook.variants, notebook.series, X)
published = early_stopping_pairs(notebook.published.variants, notebook.published.series, X)


# %%
def arrows(axes, pairs, title, hollow=False):
    """From the last to the early-stopped checkpoint of each variant."""
    improved = pairs[f"best_{Y}"] < pairs[Y]
    for row, better in zip(pairs.to_dict("records"), improved, strict=True):
        color = looks.color(row["family"]) if better else style.LIGHT
        axes.annotate(
            "",
            xy=(row[f"best_{X}"], row[f"best_{Y}"]),
            xytext=(row[X], row[Y]),
            arrowprops={"arrowstyle": "-|>", "color": color, "linewidth": 0.7, "mutation_scale": 6},
            zorder=3 if better else 1,
        )
    scatter.points(axes, pairs, X, Y, hollow, size=14)
    axes.update_datalim(pairs[[f"best_{X}", f"best_{Y}"]].to_numpy(float))
    axes.autoscale_view()
    scatter.name_axes(axes, X, Y)
    flatter = (pairs[f"best_{X}"] < pairs[X])[improved].sum()
    axes.set_title(title)
    text = f"{improved.sum()} of {len(pairs)} improved,\n{flatter} of these are flatter"
    scatter.in_corner(axes, text, [*pairs[X], *pairs[f"best_{X}"]], [*pairs[Y], *pairs[f"best_{Y}"]])


def draw():
    by_epoch = "Early-stopped: the snapshot of lowest test RLoss, where no other was measured."
    if notebook.is_paper:
        figure, panels = style.panels(height=4.2)
        arrows(panels[0], ours, "")
        note = by_epoch
    else:
        figure, panels = style.panels(1, 2, height=4.0)
        arrows(panels[0], ours, f"{notebook.experiment} ({len(ours)} variants)")
        arrows(panels[1], published, f"published, CIFAR-10 ({len(published)} variants)", hollow=True)
        note = (
            f"{scatter.comparison_note(notebook)} Published, early-stopped: the epoch of lowest test RLoss."
        )
    style.legend_below(figure, style.handles([*ours["family"], *published["family"]]), text=note)
    return figure


# %%
missing = notebook.missing(X, f"best_{X}")
notebook.save(style.missing_page("Early stopping", missing) if ours.empty else draw())
