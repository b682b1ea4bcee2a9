# %% [markdown]
# # Which sharpness predicts robust generalisation

# %%
import textwrap

from robust_flatness.analysis import comparison
from robust_flatness.analysis.evidence import Evidence
from robust_flatness.plotting import inputs, style

notebook = inputs("sharpness_comparison", globals().get("snakemake"))
evidence = Evidence.of(notebook.tables)
COLORS = {comparison.TALK: style.BLUE, comparison.CONTROL: style.ORANGE}
LOSSES = {"rloss": ", robust loss", "ce": ", clean loss", "": ""}


# %%
def strongest(rows):
    """The strongest correlation among some rows, in words."""
    row = rows.loc[rows["value"].abs().idxmax()]
    interval = f"[{row['low']:.2f}, {row['high']:.2f}]"
    return f"{row['words']}{LOSSES[row['loss']]}, ρ = {row['value']:.2f} {interval}"


def draw():
    parts = comparison.by_split(comparison.compare(evidence, [], ["spearman"]))
    groups = {row.words: row.group for rows in parts.values() for row in rows.itertuples()}
    order = [*groups]
    height = 0.6 + 0.16 * len(order)
    figure, panels = style.panels(2, height=height, sharey=True, x="Spearman's ρ with test RLoss")
    for axes, (name, rows) in zip(panels, parts.items(), strict=True):
        axes.axvline(0, color=style.GREY, linewidth=0.8)
        for row in rows.itertuples():
            y = order.index(row.words) + {"rloss": -0.14, "ce": 0.14}.get(row.loss, 0)
            color, face = COLORS.get(row.group, style.BLACK), "white" if row.clean else None
            axes.plot([row.low, row.high], [y, y], color=color, linewidth=0.8, alpha=0.5 if row.clean else 1)
            axes.plot(row.value, y, "o", color=color, markerfacecolor=face, markersize=3.6)
        measures = rows[(rows["group"] != comparison.CONTROL) & comparison.of_most(rows)]
        words = textwrap.fill(f"strongest: {strongest(measures)}", 38) if len(measures) else ""
        axes.set_title(f"Measured {name}\n{words}")
        axes.set(xlim=(-1.05, 1.05), ylim=(len(order) - 0.4, -0.6))
    panels[0].set_yticks(range(len(order)), order, fontsize=6)
    for tick, name in zip(panels[0].get_yticklabels(), order, strict=True):
        tick.set_color(COLORS.get(groups[name], style.BLACK))
    text = f"{notebook.experiment}, n = {len(evidence.models)}. Blue: the talk's measures; black: other "
    text += "sharpness; orange: controls, which measure no sharpness. Filled: on the robust loss; hollow: on "
    text += "the clean loss. Lines: 95 % bootstrap confidence intervals. Right of 0: the sharper, the less "
    text += "robust. On test examples, gradients and Fisher norms follow the test loss by construction."
    controls = parts["on training examples"]
    controls = controls[controls["group"] == comparison.CONTROL]
    style.legend(figure, {}, text, f"Strongest control: {strongest(controls)}." if len(controls) else "")
    return figure


# %%
missing = notebook.missing("avg_flatness_rloss", "test_rloss_pgd")
what = f"{comparison.FEWEST} variants; there are {len(evidence.models)}"
missing = missing or notebook.missing_unless(len(evidence.models) >= comparison.FEWEST, what, "train more")
notebook.show(draw, missing)
