"""What the Snakemake workflow asks of the library while it is planned."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from robust_flatness.config import TrainJob

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


def table_is_older(results: str, configfiles: Iterable[str | Path]) -> bool:
    """Whether the results tables were written before one of the configuration files."""
    written = Path(results, "models.csv").stat().st_mtime
    return any(Path(file).stat().st_mtime > written for file in configfiles)


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
