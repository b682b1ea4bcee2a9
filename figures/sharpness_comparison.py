# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Which sharpness predicts robust generalisation
#
# Every measure's rank correlation with test RLoss, with the gap of RLoss and with test RErr over all
# variants, the best first: on the robust loss (filled) and on the clean loss (hollow). Controls measure no
# sharpness; a measure of sharpness has to beat them.

# %%
from robust_flatness.analysis import comparison
from robust_flatness.analysis.evidence import Evidence
from robust_flatness.plotting import inputs, style

notebook = inputs("sharpness_comparison", globals().get("snakemake"))
evidence = Evidence.of(notebook.tables)
COLORS = dict(zip(comparison.GROUPS, (style.BLUE, style.BLACK, style.ORANGE), strict=True))
TITLES = dict(
    zip(
        comparison.targets(evidence.models),
        ("with test RLoss", "with its gap, test - train", "with test RErr"),
        strict=True,
    )
)
FEWEST = 6  # variants; fewer are no correlation


# %%
def mark(axes, row, y):
    """A measure's coefficient with its interval; hollow on the clean loss."""
    color, clean = COLORS[row.group], row.loss == "ce"
    axes.plot([row.low, row.high], [y, y], color=color, linewidth=0.8, alpha=0.5 if clean else 1)
    face = "white" if clean else color
    axes.plot(row.value, y, "o", color=color, markerfacecolor=face, markersize=3.6, markeredgewidth=0.8)


def headline(compared):
    """The best measure, and the control that is strongest either way, which no sign is expected of."""
    rows = compared[compared["against"] == comparison.RLOSS].dropna(subset=["value"])
    rows = rows.sort_values("value", ascending=False, kind="stable")
    control = rows["group"] == comparison.GROUPS[-1]

    def told(row):
        loss = {"rloss": " (robust loss)", "ce": " (clean loss)", "": ""}[row["loss"]]
        return f"{row['words']}{loss}, ρ = {row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"

    lines = [f"Goes best with test RLoss: {told(rows[~control].iloc[0])}"]
    if control.any():
        strongest = rows[control]["value"].abs().idxmax()
        lines.append(f"Strongest control: {told(rows.loc[strongest])}")
    return "\n".join(lines)


def draw(compared):
    order = comparison.ranked(compared, comparison.RLOSS, "spearman")
    words = compared.drop_duplicates("measure").set_index("measure")
    figure, panels = style.panels(1, len(TITLES), height=1.05 + 0.17 * len(order), sharey=True)
    for axes, (target, title) in zip(panels, TITLES.items(), strict=True):
        axes.axvline(0, color=style.GREY, linewidth=0.8)
        for number in range(0, len(order), 2):
            axes.axhspan(number - 0.5, number + 0.5, color="#f4f4f4", linewidth=0, zorder=0)
        axes.grid(visible=False, axis="y")
        for row in compared[compared["against"] == target].dropna(subset=["value"]).itertuples():
            if row.measure in order:
                shift = {"rloss": -0.14, "ce": 0.14}.get(row.loss, 0)
                mark(axes, row, order.index(row.measure) + shift)
        axes.set_title(title, fontsize=7.5)
        axes.set(xlim=(-1.05, 1.05), ylim=(len(order) - 0.4, -0.6), xticks=[-1, -0.5, 0, 0.5, 1])
        axes.tick_params(axis="y", length=0)
    figure.suptitle(headline(compared), fontsize=8, x=0.01, ha="left")
    panels[1].set_xlabel("Spearman's ρ (right: the sharper, the less robust)")
    panels[0].set_yticks(range(len(order)), [words["words"][name] for name in order], fontsize=6)
    for tick, name in zip(panels[0].get_yticklabels(), order, strict=True):
        tick.set_color(COLORS[words["group"][name]])
    style.note(
        figure,
        f"{notebook.experiment}, n = {len(evidence.models)}. Blue: the talk's measures; black: other "
        "measures of sharpness; orange: controls that measure no sharpness. Filled: on the robust loss, "
        "hollow: on the clean loss. Lines: 95 % intervals. The best is on top.",
    )
    return figure


# %%
missing = notebook.missing("avg_flatness_rloss", "test_rloss_pgd")
if not missing and len(evidence.models) < FEWEST:
    missing = notebook.say_missing(f"{FEWEST} variants; there are {len(evidence.models)}", "train more")
notebook.show(lambda: draw(comparison.compare(evidence.models, [], ["spearman"])), missing)
