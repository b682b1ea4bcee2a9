# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Robust overfitting
#
# RLoss and RErr of adversarial training (AT) over the training. On training examples the attack is that of
# the training, on augmented batches; on test examples PGD is run at every snapshot.
#
# The paper: after the first drop of the learning rate, RLoss and RErr rise on test examples while they fall
# on training examples, mainly because the loss of examples that are classified incorrectly rises; early
# stopping undoes part of it.

# %%
from robust_flatness.plotting import curves, inputs, style
from robust_flatness.tables import aggregate

notebook = inputs("robust_overfitting", globals().get("snakemake"))
SPLITS = {"train": ("training examples", style.TRAIN), "test": ("test examples", style.TEST)}
PANELS = {
    "RLoss": {f"{split}_rloss": look for split, look in SPLITS.items()},
    "RLoss on test examples": {
        "test_correct_rloss": ("classified correctly when clean", style.ORANGE),
        "test_incorrect_rloss": ("classified incorrectly when clean", style.PURPLE),
    },
    "RErr by PGD (%)": {f"{split}_rerr": look for split, look in SPLITS.items()},
}
models = notebook.ours.tables.models
best = models[(models["variant"] == "at") & (models["checkpoint"] == "best")]


# %%
def errors():
    """RErr of the last and of the early-stopped checkpoint, in words."""
    at = notebook.ours.variants[notebook.ours.variants["variant"] == "at"]
    rerr = aggregate.robust_error_column(at)
    if not aggregate.has(at, rerr, f"best_{rerr}"):
        return ""
    attack = "AutoAttack" if rerr.endswith("aa") else "PGD"
    last, stopped = at[rerr].iloc[0], at[f"best_{rerr}"].iloc[0]
    return f"RErr on test examples by {attack}: {last:.1f} % at the end, {stopped:.1f} % early-stopped."


def draw():
    histories = {layer: curves.of(layer.history, "at") for layer in notebook.layers}
    ours = histories[notebook.ours]
    shown = {name: lines for name, lines in PANELS.items() if any(aggregate.has(ours, c) for c in lines)}
    figure, panels = style.panels(len(shown), height=2.3)
    for axes, (name, lines) in zip(panels, shown.items(), strict=True):
        for layer, rows in histories.items():
            for column, (label, color) in lines.items():
                curves.draw(axes, layer, rows, column, color, label)
        curves.mark_drops(axes, notebook.ours.history)
        if aggregate.has(best, "epoch", "epochs"):
            share = (best["epoch"].mean() + 1) / best["epochs"].mean()
            label = "early-stopped checkpoint"
            axes.axvline(share, color=style.GREEN, linewidth=1, linestyle="-.", label=label)
        axes.set(xlabel=curves.EPOCH_NAME, title=name)
    note = notebook.beside("", "Compare trends with the published curves, not values")
    curves.scale(panels[-1:])
    text = [errors(), note, notebook.ours.spread("Bands"), curves.scale(panels[:-1])]
    style.legend(figure, style.entries(panels) | curves.published(panels), *text, columns=4)
    return figure


# %%
notebook.show(draw, notebook.missing("test_rloss", "train_rloss", table="history"))
