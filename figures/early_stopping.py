# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Early stopping and flatness
#
# An arrow per variant, from its last to its early-stopped checkpoint; coloured where early stopping lowers
# test RLoss, beyond the noise of its evaluation if losses of single examples were kept.
#
# The paper: where early stopping improves robustness, it finds a flatter point on the same trajectory: the
# arrows point down and to the left.

# %%
from robust_flatness.analysis.evidence import Evidence, early_stopping_pairs
from robust_flatness.plotting import inputs, looks, scatter, style

notebook = inputs("early_stopping", globals().get("snakemake"))
X, Y = "avg_flatness_rloss", "test_rloss_pgd"
evidence = {layer: layer.evidence for layer in notebook.layers}
evidence[notebook.ours] = Evidence.of(notebook.tables_with_examples)
pairs = {layer: early_stopping_pairs(found, X) for layer, found in evidence.items()}


# %%
def arrows(axes, rows, layer):
    """Draw an arrow from the last to the early-stopped checkpoint of each variant; returns labels."""
    improved = rows["improved"]
    names = layer.counted.drop_duplicates("variant").set_index("variant").get("label", default={})
    rows = rows.assign(label=rows["variant"].map(names).fillna(rows["variant"]))
    labels = scatter.fit(axes, rows, X, Y)
    axes.set_xlim(left=min(axes.get_xlim()[0], rows[f"best_{X}"].min() - 0.05))
    axes.set_ylim(bottom=min(axes.get_ylim()[0], rows[f"best_{Y}"].min() - 0.1))
    for row, better in zip(rows.to_dict("records"), improved, strict=True):
        color = looks.family(row["family"]).color if better else style.LIGHT
        look = {"arrowstyle": "-|>", "color": color, "linewidth": 0.7, "mutation_scale": 6}
        ends = (row[f"best_{X}"], row[f"best_{Y}"]), (row[X], row[Y])
        arrow = axes.annotate("", *ends, arrowprops=look, zorder=3 if better else 1, annotation_clip=False)
        arrow.arrow_patch.set_clip_path(axes.patch)
    scatter.points(axes, rows, X, Y, layer.beside, size=14)
    scatter.name_axes(axes, X, Y)
    flatter = (rows[f"best_{X}"] < rows[X])[improved].sum()
    name = f"{layer.title(len(rows))}\n" if notebook.printed else ""
    axes.set_title(f"{name}{improved.sum()} of {len(rows)} improved, {flatter} of these are flatter")
    return labels


def draw():
    shown = {layer: rows for layer, rows in pairs.items() if len(rows)}
    figure, panels = style.panels(len(shown), height=3.2, room=1.0)
    labels = [arrows(axes, rows, layer) for axes, (layer, rows) in zip(panels, shown.items(), strict=True)]
    note = "Arrows lead from the last to the early-stopped checkpoint; grey where RLoss is not lower there"
    beyond = f", beyond the noise of its evaluation ({notebook.experiment})"
    note += beyond * bool(len(notebook.tables_with_examples.examples)) + "."
    by_epoch = ", ".join(layer.name for layer, rows in shown.items() if rows.attrs["by_epoch"])
    if by_epoch:
        note += f" Early-stopped ({by_epoch}): the snapshot with the lowest test RLoss."
    families = [name for rows in shown.values() for name in rows["family"]]
    style.legend(figure, style.handles(families), note, scatter.comparison_note(notebook))
    for axes, beyond in zip(panels, labels, strict=True):
        style.place_labels(axes, beyond)
    return figure


# %%
notebook.show(draw, notebook.missing(X, f"best_{X}") if pairs[notebook.ours].empty else "")
