"""What the Snakemake workflow asks of the library while it is planned."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from robust_flatness.config import Experiment, TrainJob

#: Targets, and folders of output files, that need nothing but the results tables.
DRAWING_TARGETS = ("figures", "tables")
DRAWING_FOLDERS = ("figures/", "paper_tables/")


def only_draws(arguments: Sequence[str]) -> bool:
    """Whether a `snakemake` command line asks for figures and tables and nothing else."""
    from snakemake.cli import get_argument_parser

    try:
        known, _ = get_argument_parser().parse_known_args(list(arguments))
    except SystemExit:
        return False
    targets = known.targets or ()
    return bool(targets) and all(
        target in DRAWING_TARGETS or target.removeprefix("./").startswith(DRAWING_FOLDERS)
        for target in map(str, targets)
    )


def why_stale(results: str, experiment: Experiment, files: Iterable[str | Path]) -> str:
    """In which way models.csv lags behind the experiment, in words; empty if it does not.

    It does if it is older than one of the configuration's `files`, or lacks a variant or seed.
    """
    table = Path(results, "models.csv")
    if any(Path(file).stat().st_mtime > table.stat().st_mtime for file in files):
        return "is older than the configuration"
    if experiment.spec.results_table is not None:
        return ""
    with open(table, newline="", encoding="utf-8") as file:
        found = {(row.get("variant"), row.get("seed")) for row in csv.DictReader(file)}
    wanted = {(slug, str(seed)) for slug in experiment.variants for seed in experiment.spec.seeds}
    lacking = len(wanted - found)
    return f"lacks {lacking} of {len(wanted)} pairs of variant and seed" if lacking else ""


def applied_settings(job: TrainJob) -> dict:
    """The settings of a training as columns of the results table; none for what does not vary."""
    settings = {
        **job.model.model_dump(),
        **job.training.model_dump(mode="json", exclude={"augmentation", "milestones"}),
        **job.training.augmentation.model_dump(),
        "milestones": "/".join(f"{milestone:g}" for milestone in job.training.milestones),
    }
    settings["model"] = settings.pop("name")
    return settings


def verdicts(claims: str | Path) -> str:
    """The table of claims as a line each for the end of a run: verdict, and the first statistic that
    decides it."""
    with open(claims, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["decides"] == "yes"]
    if not rows:
        return f"{claims}: no claim"
    width = max(len(row["claim"]) for row in rows)
    lines = []
    for claim in dict.fromkeys(row["claim"] for row in rows):
        first = next(row for row in rows if row["claim"] == claim)
        shown = first["note"]
        if first["value"]:
            shown = f"{first['statistic']}: {float(first['value']):.2f}"
        if first["value"] and first["low"]:
            shown += f" [{float(first['low']):.2f}, {float(first['high']):.2f}]"
        lines.append(f"  {claim:<{width}}  {first['verdict']:<14}  {shown}")
    return "\n".join(["The talk's claims on this experiment:", *lines, f"({claims})"])
