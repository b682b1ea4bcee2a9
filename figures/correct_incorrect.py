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
# Robust overfitting is mainly a rise of RLoss on incorrectly classified examples.

# %%
from robust_flatness import tables as results
from robust_flatness.plotting import curves, inputs, looks, style

notebook = inputs("correct_incorrect", globals().get("snakemake"))
ours, printed = notebook.history, notebook.published.history
SLUGS = ("at", "mart-6", "ignore-incorrect", "prevent-label-leaking")
CURVES = {
    "train_rloss": ("train", style.TRAIN),
    "test_rloss": ("test", style.TEST),
    "test_correct_rloss": ("test, correct when clean", style.ORANGE),
    "test_incorrect_rloss": ("test, incorrect when clean", style.PURPLE),
}


# %%
def draw(slugs):
    figure, panels = style.panels(1, len(slugs), height=2.6, sharey=True)
    for axes, slug in zip(panels, slugs, strict=True):
        axes.set_title(looks.variant(slug), fontsize=7)
        for column, (label, color) in CURVES.items():
            curves.draw(axes, curves.of(ours, slug), column, color=color, label=label)
            if not notebook.is_paper:
                curves.draw(axes, curves.of(printed, slug), column, **{**style.PUBLISHED, "color": color})
        curves.mark_drops(axes, curves.drops(ours, slug))
        axes.set_xlabel("Epoch (share of training)")
    panels[0].set_ylabel("RLoss")
    note = "" if notebook.is_paper else "Dashed: published, CIFAR-10."
    lacking = ", ".join(slug for slug in SLUGS if slug not in slugs)
    if lacking:
        note += f" {'Pictures only in the paper' if notebook.is_paper else 'Not trained'}: {lacking}."
    style.legend_below(figure, style.entries(panels[:1]), columns=4, text=note)
    return figure


# %%
slugs = [slug for slug in SLUGS if results.has(curves.of(ours, slug), "test_correct_rloss")]
missing = notebook.missing("test_correct_rloss", "test_incorrect_rloss", table="history")
missing = missing or "Missing: these variants' training curves."
title = "Correct and incorrect examples"
notebook.save(draw(slugs) if slugs else style.missing_page(title, missing))
