# %% [markdown]
# # Which sharpness predicts robust generalisation

# %%
from robust_flatness.analysis import comparison
from robust_flatness.analysis.correlation import difference
from robust_flatness.analysis.evidence import Evidence
from robust_flatness.plotting import inputs, looks, typeset
from robust_flatness.tables import aggregate, frames, schema

notebook = inputs("sharpness_comparison", globals().get("snakemake"))
FLATNESS = "avg_flatness_rloss"
LOSSES = {"rloss": "robust loss", "ce": "clean loss", "": ""}
HEADINGS = {"pearson": "Pearson", "spearman": "Spearman", "kendall": "Kendall"}
HEADINGS |= {"granulated": "Kendall, granulated", "partial": "Spearman given train RLoss"}

# %%
evidence = Evidence.of(notebook.tables)
numeric = [name for name, family in looks.every().items() if family.setting]
compared = comparison.compare(evidence, numeric)


def cell(row):
    if not row.low <= row.high:
        return "-"
    return f"{row.value:.2f} [{row.low:.2f}, {row.high:.2f}]"


def advantage(control):
    """How average-case flatness correlates with test RLoss, compared with a control."""
    found = difference(evidence.models, FLATNESS, control, comparison.RLOSS, "spearman", absolute=True)
    low, high = found.interval
    verdict = "not differently from"
    if low > 0 or high < 0:
        verdict = f"{'more' if low > 0 else 'less'} strongly than"
    return f"{verdict} {schema.describe(control)} (difference {found.value:.2f} [{low:.2f}, {high:.2f}])"


def wide(rows):
    """A row per measure, loss and target, a column per coefficient."""
    rows = rows.assign(shown=[cell(row) for row in rows.itertuples()])
    keys = ["against", "measure", "words", "loss", "group", "passes"]
    shown = rows.pivot(index=keys, columns="coefficient", values="shown").reset_index()
    spearman = rows[rows["coefficient"] == "spearman"].set_index(keys)[["value", "n"]]
    spearman = spearman.reindex(shown[keys].itertuples(index=False, name=None))
    shown["order"], shown["n"] = spearman["value"].abs().to_numpy(), spearman["n"].to_numpy()
    targets = {name: number for number, name in enumerate(comparison.targets(evidence.models))}
    shown["target"] = shown["against"].map(targets)
    shown["apart"] = shown["group"] == comparison.ON_TEST
    return shown.sort_values(["apart", "target", "order"], ascending=[True, True, False], kind="stable")


shown = wide(compared)
shown["loss"] = shown["loss"].map(LOSSES)
shown["section"] = [
    f"{'on test examples, ' if row.apart else ''}with {schema.describe(row.against)}"
    for row in shown.itertuples()
]
columns = {"words": "Measure", "loss": "On", "group": "Kind"} | HEADINGS
columns |= {"n": ("n", 0), "passes": ("Passes", 0)}

# %%
notes = [
    "In brackets the 95 % bootstrap confidence interval, the wider one of resampling variants and resampling "
    "families; of the granulated coefficient, resampling families. n: variants with the measure. Passes: "
    "forward and backward through the network, for one example, with the default settings."
]
if evidence.not_learnt:
    names = ", ".join(evidence.unlearnt)
    notes.append(f"Left out, not having learnt: {names}. The CSV has each coefficient with these, too.")
columns_of = [(name, FLATNESS, comparison.RLOSS) for name in comparison.CONTROLS]
controls = [names[0] for names in columns_of if aggregate.has(evidence.models, *names, rows=4)]
if controls:
    words = "; ".join(map(advantage, controls))
    notes.append(f"By |rho|, average-case flatness in RLoss correlates with test RLoss {words}.")
groups = {comparison.SHARPNESS: "train", comparison.ON_TEST: "test"}
ranked = compared[(compared["against"] == comparison.RLOSS) & (compared["coefficient"] == "spearman")]
ranked = ranked.assign(split=ranked["group"].map(groups)).dropna(subset=["split", "value"])
pairs = ranked.pivot(index=["words", "loss"], columns="split", values="value")
pairs = pairs.reindex(columns=["train", "test"]).dropna().reset_index()
if len(pairs) > 1:
    train, test = pairs["train"], pairs["test"]
    best = pairs.loc[test.idxmax()]
    notes.append(
        "Sharpness on test examples instead of training ones: Spearman's with test RLoss is higher for "
        f"{(test > train).sum()} of {len(pairs)} measures, on average by {(test - train).mean():.2f}; the "
        f"highest is {best['words']} ({LOSSES[best['loss']]}), {best['test']:.2f} instead of "
        f"{best['train']:.2f}; the two orders agree with Spearman's {train.corr(test, 'spearman'):.2f}."
    )
title = f"Which sharpness predicts robust generalisation, {notebook.experiment}"
texts = typeset.texts(shown.drop(columns=["order", "target", "apart"]), columns, title, notes, "section")
texts[".csv"] = frames.frame_text(compared.map(typeset.rounded))
notebook.write(texts)
