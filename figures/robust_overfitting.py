# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Robust overfitting
#
# RLoss and RErr of the AT baseline over training. The training curves are the training attack's own, on
# the augmented batches; on test examples PGD is run at every snapshot.
#
# Claim: after the first drop of the learning rate (dotted), RLoss and RErr rise on test examples while
# they fall on training examples. Early stopping undoes part of it.

# %%
from robust_flatness import tables as results
from robust_flatness.plotting import curves, inputs, style

notebook = inputs("robust_overfitting", globals().get("snakemake"))
ours, theirs = curves.of(notebook.history, "at"), curves.of(notebook.published.history, "at")

CURVES = {
    "rloss": [
        ("train_rloss", "train", style.TRAIN, "-"),
        ("test_rloss", "test", style.TEST, "-"),
        ("test_correct_rloss", "test, correct when clean", style.ORANGE, "-"),
        ("test_incorrect_rloss", "test, incorrect when clean", style.PURPLE, "-"),
    ],
    "rerr": [("train_rerr", "train", style.TRAIN, "-"), ("test_rerr", "test", style.TEST, "-")],
}


# %%
def early_stopping(axes):
    """RErr of the last and of the early-stopped checkpoint, in words and as a dot."""
    at = notebook.variants[notebook.variants["variant"] == "at"]
    rerr = results.robust_error_column(at)
    best = notebook.models.query("variant == 'at' and checkpoint == 'best'")
    if results.has(at, rerr, f"best_{rerr}"):
        attack = "AutoAttack" if rerr.endswith("aa") else "PGD"
        last, stopped = at[rerr].iloc[0], at[f"best_{rerr}"].iloc[0]
        axes.set_title(f"{attack}: {last:.1f} % at the end, {stopped:.1f} % early-stopped")
    if results.has(best, "epoch", "epochs"):
        share = (best["epoch"].mean() + 1) / best["epochs"].mean()
        axes.axvline(share, color=style.GREEN, linewidth=0.8, linestyle="--", label="early-stopped")


def draw():
    figure, panels = style.panels(1, 2, height=2.9)
    for axes, (measure, lines) in zip(panels, CURVES.items(), strict=True):
        for column, label, color, line in lines:
            curves.draw(axes, ours, column, label=label, color=color, linestyle=line)
            if not notebook.is_paper:
                curves.draw(axes, theirs, column, **{**style.PUBLISHED, "color": color})
        curves.mark_drops(axes, curves.drops(ours))
        axes.set(
            xlabel="Epoch (share of training)", ylabel="RLoss" if measure == "rloss" else "RErr (%) by PGD"
        )
    early_stopping(panels[1])
    if not notebook.is_paper:
        panels[0].plot([], [], **style.PUBLISHED, label="published, CIFAR-10")
    entries = style.entries(panels)
    style.legend_below(figure, entries, columns=6)
    return figure


# %%
missing = notebook.missing("test_rloss", "train_rloss", table="history")
notebook.save(style.missing_page("Robust overfitting", missing) if missing or ours.empty else draw())
