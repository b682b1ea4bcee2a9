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
from robust_flatness import tables as results
from robust_flatness.plotting import curves, inputs, looks, style

notebook = inputs("training_curves", globals().get("snakemake"))
headline = [*results.read_printed("headline")["variant"]]


# %%
def test_curve(source, slug):
    """Test RLoss over epochs, ours or published."""
    return curves.test_curve(source.history, source.series, slug)


def draw(slugs):
    columns = min(5, len(slugs))
    rows = -(-len(slugs) // columns)
    figure, panels = style.grid(rows, columns, height=1.05, sharex=True, sharey=True)
    baseline = test_curve(notebook, "at")
    for axes, slug in zip(panels, slugs, strict=False):
        if slug != "at":
            curves.draw(axes, baseline, "test_rloss", color=style.LIGHT, linewidth=2)
        curves.draw(axes, curves.of(notebook.history, slug), "train_rloss", color=style.TRAIN, label="train")
        curves.draw(axes, test_curve(notebook, slug), "test_rloss", color=style.TEST, label="test")
        if not notebook.is_paper:
            printed = test_curve(notebook.published, slug)
            curves.draw(axes, printed, "test_rloss", **{**style.PUBLISHED, "color": style.TEST})
        axes.set_title(looks.variant(slug), fontsize=6.5)
    for axes in panels[len(slugs) :]:
        axes.set_axis_off()
    note = (
        "Epoch (share of training)\nBlue: training; red: test examples; grey: the AT baseline's test RLoss."
    )
    if not notebook.is_paper:
        note += " Dashed: published, CIFAR-10, test."
    style.name_grid(figure, note, "RLoss")
    return figure


# %%
slugs = [slug for slug in headline if len(test_curve(notebook, slug))]
slugs.sort(key=lambda slug: slug != "at")
missing = notebook.missing("test_rloss", table="history") or "Missing: the methods of the headline table."
notebook.save(draw(slugs) if slugs else style.missing_page("Training curves", missing))
