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
from robust_flatness import results
from robust_flatness.plotting import curves, inputs, style

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
def draw():
    figure, panels = style.panels(1, len(SLUGS), height=2.6, sharey=True)
    for axes, slug in zip(panels, SLUGS, strict=True):
        axes.set_title(results.catalogue()[slug].label, fontsize=7)
        rows = curves.of(ours, slug)
        if not results.has(rows, "test_correct_rloss"):
            reason = "the paper prints\nthis as a picture only" if notebook.is_paper else "not trained"
            axes.text(0.5, 0.5, reason, ha="center", color=style.GREY, transform=axes.transAxes)
            continue
        for column, (label, color) in CURVES.items():
            curves.draw(axes, rows, column, color=color, label=label)
            if not notebook.is_paper:
                curves.draw(axes, curves.of(printed, slug), column, **{**style.PUBLISHED, "color": color})
        curves.mark_drops(axes, curves.drops(ours, slug))
        axes.set_xlabel("Epoch (share)")
    panels[0].set_ylabel("RLoss")
    entries = next(axes.get_legend_handles_labels()[0] for axes in panels if axes.lines)
    note = "" if notebook.is_paper else "Dashed: published, CIFAR-10."
    style.legend_below(figure, entries, columns=4, text=note)
    return figure


# %%
missing = notebook.missing("test_correct_rloss", "test_incorrect_rloss", table="history")
shown = ours["variant"].isin(SLUGS).any()
missing = missing or "Missing: these variants' training curves." * (not shown)
notebook.save(style.missing_page("Correct and incorrect examples", missing) if missing else draw())
