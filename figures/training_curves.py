# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Training curves of the methods
#
# RLoss on training (blue) and test examples (red) over epochs, for the methods of the headline table;
# the baseline's test curve in grey. Dashed: published, as far as the paper's figures give it.

# %%
from robust_flatness.plotting import curves, inputs, looks, style
from robust_flatness.tables import printed

notebook = inputs("training_curves", globals().get("snakemake"))
headline = [*printed.read_printed("headline")["variant"]]
slugs = [slug for slug in headline if len(curves.test_curve(notebook.ours, slug))]
slugs.sort(key=lambda slug: slug != "at")


# %%
def draw():
    columns = min(len(slugs), min((5, 4, 6), key=lambda count: -len(slugs) % count))
    rows = -(-len(slugs) // columns)
    figure, panels = style.grid(rows, columns, height=1.05, bottom=0.6, sharex=True, sharey=True)
    baseline = curves.test_curve(notebook.ours, "at")
    for axes, slug in zip(panels, slugs, strict=False):
        if slug != "at":
            curves.draw(axes, notebook.ours, baseline, "test_rloss", color=style.LIGHT, linewidth=2)
        rows = curves.of(notebook.ours.history, slug)
        curves.draw(axes, notebook.ours, rows, "train_rloss", color=style.TRAIN)
        for layer in notebook.layers:
            curves.draw(axes, layer, curves.test_curve(layer, slug), "test_rloss", color=style.TEST)
        axes.set_title(looks.variant(slug), fontsize=6.5)
    for axes in panels[len(slugs) :]:
        axes.set_axis_off()
    beyond = curves.scale(panels[: len(slugs)], together=True)
    note = "Epoch (share of training)\n"
    note += "Blue: training; red: test examples; grey: the AT baseline's test RLoss. "
    note += notebook.beside("Dashed: published, CIFAR-10, test")
    style.name_grid(figure, f"{note} {curves.BEYOND * beyond}", "RLoss", bottom=0.6)
    return figure


# %%
missing = notebook.missing("test_rloss", table="history")
if not slugs:
    missing = missing or notebook.say_missing("the methods of the headline table", "add them to the variants")
notebook.show(draw, missing if not slugs else "")
