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
# they fall on training examples. Early stopping undoes part of it. What rises is mainly the loss of
# examples that are classified incorrectly, attacked or not.

# %%
from robust_flatness.plotting import curves, inputs, style
from robust_flatness.tables import aggregate

notebook = inputs("robust_overfitting", globals().get("snakemake"))

PANELS = {
    "RLoss": {"train_rloss": ("training examples", style.TRAIN), "test_rloss": ("test examples", style.TEST)},
    "RLoss on test examples": {
        "test_correct_rloss": ("classified correctly when clean", style.ORANGE),
        "test_incorrect_rloss": ("classified incorrectly when clean", style.PURPLE),
    },
    "RErr by PGD (%)": {
        "train_rerr": ("training examples", style.TRAIN),
        "test_rerr": ("test examples", style.TEST),
    },
}


# %%
def early_stopped():
    """Where the early-stopped checkpoint lies, as a share of the training; None if unknown."""
    models = notebook.ours.tables.models
    best = models[(models["variant"] == "at") & (models["checkpoint"] == "best")]
    if not aggregate.has(best, "epoch", "epochs"):
        return None
    return (best["epoch"].mean() + 1) / best["epochs"].mean()


def errors():
    """RErr of the last and of the early-stopped checkpoint, in words."""
    at = notebook.ours.variants[notebook.ours.variants["variant"] == "at"]
    rerr = aggregate.robust_error_column(at)
    if not aggregate.has(at, rerr, f"best_{rerr}"):
        return ""
    attack = "AutoAttack" if rerr.endswith("aa") else "PGD"
    last, stopped = at[rerr].iloc[0], at[f"best_{rerr}"].iloc[0]
    return f"RErr on test examples by {attack}: {last:.1f} % at the end, {stopped:.1f} % early-stopped. "


def draw():
    shown = {
        name: lines
        for name, lines in PANELS.items()
        if any(aggregate.has(curves.of(notebook.ours.history, "at"), column) for column in lines)
    }
    figure, panels = style.panels(1, len(shown), height=2.7)
    for axes, (name, lines) in zip(panels, shown.items(), strict=True):
        for layer in notebook.layers:
            rows = curves.of(layer.history, "at")
            for column, (label, color) in lines.items():
                curves.draw(axes, layer, rows, column, label=label, color=color)
        curves.mark_drops(axes, curves.drops(notebook.ours.history))
        if early_stopped() is not None:
            look = {"color": style.GREEN, "linewidth": 0.8, "linestyle": "--"}
            axes.axvline(early_stopped(), **look, label="early-stopped checkpoint")
        axes.set(xlabel="Epoch (share of training)")
        axes.set_title(name)
    beyond = curves.scale(panels)
    note = errors() + "On training examples: by the attack of the training itself, augmented. "
    note += notebook.beside("Dashed: published, CIFAR-10", "compare the course, not the values")
    note = " ".join(filter(None, [note, notebook.ours.spread("Bands"), curves.BEYOND * beyond]))
    style.legend_below(figure, style.entries(panels), 6, note)
    return figure


# %%
notebook.show(draw, notebook.missing("test_rloss", "train_rloss", table="history"))
