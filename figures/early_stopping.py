# %% [markdown]
# # Early stopping and flatness

# %%
from functools import partial

from robust_flatness.analysis.evidence import Evidence, early_stopping_pairs
from robust_flatness.plotting import inputs, looks, scatter, style

notebook = inputs("early_stopping", globals().get("snakemake"))
X, Y = "avg_flatness_rloss", "test_rloss_pgd"
evidence = {layer: layer.evidence for layer in notebook.layers}
evidence[notebook.ours] = Evidence.of(notebook.tables_with_examples)
pairs = {layer: early_stopping_pairs(found, X) for layer, found in evidence.items()}


# %%
def arrows(axes, layer):
    """Draw an arrow from the last to the early-stopped checkpoint of each variant; returns labels."""
    names = layer.counted.drop_duplicates("variant").set_index("variant")["label"]
    rows = pairs[layer].assign(label=pairs[layer]["variant"].map(names).fillna(pairs[layer]["variant"]))
    labels = scatter.fit(axes, rows, X, Y)
    axes.set_xlim(left=min(axes.get_xlim()[0], rows[f"best_{X}"].min() - 0.05))
    axes.set_ylim(bottom=min(axes.get_ylim()[0], rows[f"best_{Y}"].min() - 0.1))
    for row in rows.to_dict("records"):
        color = looks.family(row["family"]).color if row["improved"] else style.LIGHT
        look = {"arrowstyle": "-|>", "color": color, "linewidth": 0.7, "mutation_scale": 6}
        ends, order = ((row[f"best_{X}"], row[f"best_{Y}"]), (row[X], row[Y])), 1 + 2 * row["improved"]
        arrow = axes.annotate("", *ends, arrowprops=look, zorder=order, annotation_clip=False)
        arrow.arrow_patch.set_clip_path(axes.patch)
    scatter.points(axes, rows, X, Y, layer.beside, size=14)
    scatter.name_axes(axes, X, Y)
    better = rows[rows["improved"]]
    flatter = (better[f"best_{X}"] < better[X]).sum()
    name = f"{layer.name}\n" if notebook.printed else ""
    axes.set_title(f"{name}RLoss is lower for {len(better)} of {len(rows)}; {flatter} of these are flatter")
    return labels


def draw():
    shown = [layer for layer, rows in pairs.items() if len(rows)]
    note = "Arrows lead from the last to the early-stopped checkpoint; grey where RLoss is not lower there"
    noise = len(notebook.tables_with_examples.examples)
    note += f", beyond the noise of its evaluation ({notebook.experiment})." if noise else "."
    by_epoch = ", ".join(layer.name for layer in shown if pairs[layer].attrs["by_epoch"])
    note += f" Early-stopped ({by_epoch}): the snapshot with the lowest test RLoss." * bool(by_epoch)
    cells = [partial(arrows, layer=layer) for layer in shown]
    return scatter.figure(cells, note, notebook.beside("Hollow: published, CIFAR-10"), height=3.2)


# %%
notebook.show(draw, notebook.missing(X, f"best_{X}") if pairs[notebook.ours].empty else "")
