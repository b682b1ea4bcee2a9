# %% [markdown]
# # Robust overfitting

# %%
from robust_flatness.plotting import curves, inputs, style
from robust_flatness.plotting.curves import Curve
from robust_flatness.tables import aggregate

notebook = inputs("robust_overfitting", globals().get("snakemake"))
PANELS = {
    "RLoss": [
        Curve("train_rloss", style.TRAIN, "training examples"),
        Curve("test_rloss", style.TEST, "test examples"),
    ],
    "RLoss on test examples": [
        Curve("test_correct_rloss", style.ORANGE, "classified correctly when clean"),
        Curve("test_incorrect_rloss", style.PURPLE, "classified incorrectly when clean"),
    ],
    "RErr by PGD (%)": [Curve("train_rerr", style.TRAIN), Curve("test_rerr", style.TEST)],
}


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
    ours = curves.training(notebook.ours, "at")
    panels = {title: [c for c in lines if aggregate.has(ours, c.column)] for title, lines in PANELS.items()}
    panels = {title: lines for title, lines in panels.items() if lines}
    return curves.figure(notebook, panels, errors(), height=2.3)


# %%
notebook.show(draw, notebook.missing("test_rloss", "train_rloss", table="history"))
