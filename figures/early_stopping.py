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
examples = {notebook.ours: notebook.tables_with_examples.examples}
pairs = {
    layer: early_stopping_pairs(layer.counted, layer.series, X, examples.get(layer))
    for layer in notebook.layers
}


# %%
def arrows(axes, rows, layer):
    """From the last to the early-stopped checkpoint of each variant; whether one lies beyond the axes."""
    improved = rows["improved"]
    best = rows[[f"best_{X}", f"best_{Y}"]].set_axis([X, Y], axis=1)
    names = layer.counted.drop_duplicates("variant").set_index("variant").get("label", default={})
    named = rows.assign(label=rows["variant"].map(names).fillna(rows["variant"]))
    beyond = scatter.fit(axes, named, X, Y, unnamed=best)
    for row, better in zip(rows.to_dict("records"), improved, strict=True):
        arrow = axes.annotate(
            "",
            xy=(row[f"best_{X}"], row[f"best_{Y}"]),
            xytext=(row[X], row[Y]),
            arrowprops={
                "arrowstyle": "-|>",
                "color": looks.color(row["family"]) if better else style.LIGHT,
                "linewidth": 0.7,
                "mutation_scale": 6,
            },
            zorder=3 if better else 1,
            annotation_clip=False,
        )
        arrow.arrow_patch.set_clip_path(axes.patch)
    scatter.points(axes, rows, X, Y, layer.beside, size=14)
    scatter.name_axes(axes, X, Y)
    flatter = (rows[f"best_{X}"] < rows[X])[improved].sum()
    name = f"{layer.title(len(rows))}\n" if notebook.printed else ""
    axes.set_title(
        f"{name}{improved.sum()} of {len(rows)} improved, {flatter} of these are flatter", fontsize=7
    )
    return beyond


def draw():
    shown = {layer: rows for layer, rows in pairs.items() if len(rows)}
    single = len(shown) == 1
    figure, panels = style.panels(1, len(shown), height=3.6 if single else 4.0)
    beyond = [arrows(axes, rows, layer) for axes, (layer, rows) in zip(panels, shown.items(), strict=True)]
    note = "Arrows lead from the last to the early-stopped checkpoint; grey where that has no lower RLoss. "
    by_epoch = [layer.name for layer, rows in shown.items() if rows.attrs["by_epoch"]]
    if by_epoch:
        note += (
            f"Early-stopped ({', '.join(by_epoch)}): the snapshot of lowest test RLoss, for want of another. "
        )
    note += scatter.comparison_note(notebook) + f" {scatter.BEYOND}" * any(beyond)
    entries = style.handles([name for rows in shown.values() for name in rows["family"]])
    if single:
        style.legend_beside(figure, entries)
        style.note(figure, note)
    else:
        style.legend_below(figure, entries, text=note)
    return figure


# %%
notebook.show(draw, notebook.missing(X, f"best_{X}") if pairs[notebook.ours].empty else "")
