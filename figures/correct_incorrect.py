# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Correctly and incorrectly classified examples
#
# Test RLoss over epochs, split by whether the checkpoint classifies the clean example correctly, for the
# methods that treat these differently: MART weighs incorrect examples more, "ignore incorrect" does not
# attack them in training, "prevent label leaking" attacks the predicted label.
#
# The paper: robust overfitting is mainly a rise of RLoss on incorrectly classified examples.

# %%
from robust_flatness.plotting import curves, inputs, looks, style
from robust_flatness.tables import aggregate

notebook = inputs("correct_incorrect", globals().get("snakemake"))
history = notebook.ours.history
SLUGS = ("at", "mart-6", "ignore-incorrect", "prevent-label-leaking")
CURVES = {
    "train_rloss": ("training", style.TRAIN),
    "test_rloss": ("test", style.TEST),
    "test_correct_rloss": ("test, classified correctly when clean", style.ORANGE),
    "test_incorrect_rloss": ("test, classified incorrectly when clean", style.PURPLE),
}
slugs = [slug for slug in SLUGS if aggregate.has(curves.of(history, slug), "test_correct_rloss")]


# %%
def draw():
    figure, panels = style.panels(len(slugs), height=2.2, sharey=True)
    for axes, slug in zip(panels, slugs, strict=True):
        for layer in notebook.layers:
            rows = curves.of(layer.history, slug)
            for column, (label, color) in CURVES.items():
                curves.draw(axes, layer, rows, column, color, label)
        curves.mark_drops(axes, history, slug)
        axes.set(xlabel=curves.EPOCH_NAME, title=looks.variant(slug))
    panels[0].set_ylabel("RLoss")
    lacking = ", ".join(looks.variant(slug) for slug in SLUGS if slug not in slugs)
    style.legend(
        figure,
        style.entries(panels) | curves.published(panels),
        curves.scale(panels, together=True, ours=True),
        "Published curves (AT alone) may leave the axis, which is set by ours." * bool(notebook.printed),
        f"{'Not trained' if notebook.printed else 'Pictures only in the paper'}: {lacking}." * bool(lacking),
        columns=3,
    )
    return figure


# %%
missing = notebook.missing("test_correct_rloss", "test_incorrect_rloss", table="history")
what, remedy = "these variants' training curves", "add them to the variants"
notebook.show(draw, missing or notebook.missing_unless(slugs, what, remedy))
