# %% [markdown]
# # Correlations

# %%
import pandas as pd
from scipy import stats

from robust_flatness.analysis.correlation import coefficient, correlate
from robust_flatness.plotting import inputs, typeset
from robust_flatness.tables import aggregate, schema

notebook = inputs("correlations", globals().get("snakemake"))
variants, published = notebook.ours.counted, notebook.published.counted
everyone = notebook.ours.evidence.complete.models
WITHOUT = "weight-clipping-0.025"  # its flatness is printed as 0

# %%
measures = [name for name, q in schema.MAIN.items() if q.description.compared and q.split in ("", "test")]
for case in ("avg", "worst"):
    measures += [name for name in aggregate.all_radii(variants, case).values() if name not in measures]
measures += ["avg_flatness_rloss_std", "train_avg_flatness_rloss", "train_worst_flatness_rloss"]
main = ["avg_flatness_rloss", "worst_flatness_rloss"]
cases = [
    (measure, target, "")
    for target in ("test_rloss_pgd", aggregate.robust_error_column(variants))
    for measure in measures
]
cases += [(measure, target, "") for target in ("rloss_gap", "rloss_overfitting") for measure in main]
cases += [(measure, "test_rloss_pgd", WITHOUT) for measure in main]


# %%
def student_p(r, n):
    """Two-sided p-value of r from Student's t with n - 2 degrees of freedom, as in the paper."""
    return 0.0 if abs(r) >= 1 else 2 * stats.t.sf(abs(r) * ((n - 2) / (1 - r * r)) ** 0.5, n - 2)


rows = []
for measure, target, left_out in cases:
    ours, theirs, both = (frame[frame["variant"] != left_out] for frame in (variants, published, everyone))
    if not aggregate.has(ours, measure, target, rows=4):
        continue
    for kind in ("pearson", "spearman"):
        found = correlate(ours, measure, target, kind)
        printed = float("nan")
        if aggregate.has(theirs, measure, target):
            printed = coefficient(theirs[measure], theirs[target], kind)
        rows.append(
            {
                **{"measure": measure, "against": target, "without": left_out, "coefficient": kind},
                **{"value": found.value, **found.interval._asdict()},
                **{"p_permutation": found.p, "p_student": student_p(found.value, found.n), "n": found.n},
                "with_not_learnt": coefficient(both[measure], both[target], kind),
                "families": found.families,
                "low_variants": found.by_variant.low,
                "high_variants": found.by_variant.high,
                "low_families": found.by_family.low,
                "high_families": found.by_family.high,
                "published": printed,
            }
        )
frame = pd.DataFrame(rows or [dict.fromkeys(("measure", "against", "coefficient", "value"))])
frame["with"] = [f"with {schema.describe(name)}" if name else "" for name in frame["against"].fillna("")]
frame["name"] = [
    (schema.describe(name) if name else "no measure with enough variants")
    + (f", without {left_out}" if left_out else "")
    for name, left_out in zip(frame["measure"], frame.get("without", [""] * len(frame)), strict=True)
]

# %%
columns = {
    "name": "Measure",
    "coefficient": "Coefficient",
    "value": ("Value", 3),
    "low": ("95 % from", 3),
    "high": ("to", 3),
    "p_permutation": ("p, permutation", typeset.p_value),
    "p_student": ("p, Student", typeset.p_value),
    "n": ("n", 0),
    "with_not_learnt": ("With models that have not learnt", 3),
    "published": ("Published", 3),
}
if notebook.printed is None:
    columns.pop("published")
if len(everyone) == len(variants):
    columns.pop("with_not_learnt")
notes = [
    "Intervals: BCa bootstrap, the wider of resampling variants and resampling families. Published: computed "
    "from the printed table (RErr by AutoAttack), so that rounding is in it."
]
title = f"Correlations over variants ({notebook.experiment})"
notebook.write(typeset.texts(frame, columns, title, notes, sections="with"))
