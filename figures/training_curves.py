# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Training curves of the methods
#
# RLoss on training and test examples over epochs, for the methods of the headline table; the baseline's
# test curve in grey. Dashed: published, as far as the paper's figures give it.

# %%
from matplotlib.lines import Line2D

from robust_flatness.plotting import curves, inputs, looks, style
from robust_flatness.tables import printed

notebook = inputs("training_curves", globals().get("snakemake"))
ours = notebook.ours
headline = [*printed.read_printed("headline")["variant"]]
slugs = [slug for slug in headline if len(curves.test_curve(ours, slug))]
slugs.sort(key=lambda slug: slug != "at")
COLORS = {"training examples": style.TRAIN, "test examples": style.TEST, "AT, test examples": style.LIGHT}


# %%
def draw():
    columns = min(5, len(slugs))
    figure, panels = style.panels(len(slugs), columns, height=1.35, sharex=True, sharey=True)
    for axes, slug in zip(panels, slugs, strict=True):
        curves.draw(axes, ours, curves.test_curve(ours, "at"), "test_rloss", style.LIGHT, linewidth=2.5)
        curves.draw(axes, ours, curves.of(ours.history, slug), "train_rloss", style.TRAIN)
        for layer in notebook.layers:
            curves.draw(axes, layer, curves.test_curve(layer, slug), "test_rloss", style.TEST)
        axes.set_title(looks.variant(slug))
    style.name_bottom(panels, columns, curves.EPOCH_NAME)
    figure.supylabel("RLoss (lower is more robust)")
    text = curves.scale(panels, together=True)
    lines = {name: Line2D([], [], color=color) for name, color in COLORS.items()}
    style.legend(figure, lines | curves.published(panels), text)
    return figure


# %%
missing = notebook.missing("test_rloss", table="history")
what, remedy = "the methods of the headline table", "add them to the variants"
notebook.show(draw, "" if slugs else missing or notebook.missing_unless(slugs, what, remedy))
