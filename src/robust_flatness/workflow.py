"""What the Snakemake workflow asks of the library while it is planned."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from shlex import quote
from typing import NamedTuple

from robust_flatness import __version__
from robust_flatness.config import TrainJob
from robust_flatness.errors import ConfigError, FileError
from robust_flatness.experiment import Experiment
from robust_flatness.measures.registry import MEASURES
from robust_flatness.tables.collect import CollectSpec, VariantEntry
from robust_flatness.tables.rows import read_rows
from robust_flatness.tables.runs import PREFIX, digest, measure_digest

#: Targets, and folders of output files, that need nothing but the results tables.
DRAWING_TARGETS = ("figures", "tables", "page")
DRAWING_FOLDERS = ("figures/", "paper_tables/", "report/")


def only_draws(targets: Iterable[str | Path]) -> bool:
    """Whether the targets of a `snakemake` command are figures and tables and nothing else."""
    names = [str(target) for target in targets]
    return bool(names) and all(
        name in DRAWING_TARGETS or name.removeprefix("./").startswith(DRAWING_FOLDERS) for name in names
    )


def check_words(arguments: Sequence[str]) -> None:
    """Whether the words after `--configfile` of a `snakemake` command are files, and those after `--config`
    settings. Both options take several, so that a target after them is taken for one.

    Raises
    ------
    ConfigError
        If one is not.
    """
    for position, option in enumerate(arguments):
        words = [*takewhile(lambda word: not word.startswith("-"), arguments[position + 1 :])]
        if option in ("--configfile", "--configfiles"):
            others = [word for word in words if not Path(word).exists() or Path(word).is_dir()]
            for word in others:
                if Path(word).suffix in (".yaml", ".yml", ".json"):
                    raise ConfigError(f"{option}: there is no file {word}")
        elif option in ("--config", "-C"):
            others = [word for word in words if "=" not in word]
        else:
            continue
        if others:
            targets = " ".join(map(quote, others))
            given = " ".join([option, *(quote(word) for word in words if word not in others)])
            what = "settings (name=value)" if option in ("--config", "-C") else "files"
            raise ConfigError(
                f"{option} takes all words up to the next option for {what}, and {targets} is none; write "
                f"targets first (snakemake {targets} {given}) or after -- ({given} -- {targets})"
            )


def gpus_here() -> int:
    """NVIDIA GPUs of this machine that jobs may use, counted without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    return len([path for path in Path("/dev").glob("nvidia*") if path.name[6:].isdigit()])


def plain_executable(executable: str, *, here_alone: bool) -> str:
    """`executable`, Python of some environment, by a path that a shell takes without quotes.

    Where a folder of its path has a space in its name, this is a path through a link to the environment,
    in a temporary folder that is removed when this process ends.

    Raises
    ------
    ConfigError
        If there has to be a link, but jobs run on other machines too (not `here_alone`), or none can
        be made.
    """
    if quote(executable) == executable:
        return executable
    problem = (
        f"{executable}: the path of this environment has a space or another character that a shell does not "
        "take as it is, and Snakemake does not quote it; make the environment in a folder without"
    )
    if not here_alone:
        raise ConfigError(problem)
    path = Path(executable)
    try:
        folder = tempfile.mkdtemp(prefix="robust-flatness-")
        link = Path(folder, "environment")
        link.symlink_to(path.parents[1].absolute(), target_is_directory=True)
    except OSError as error:
        raise ConfigError(f"{problem} ({error})") from None
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    linked = str(link / path.parent.name / path.name)
    if quote(linked) != linked:
        raise ConfigError(f"{problem}, or set TMPDIR to one")
    return linked


def why_stale(results: str | Path, experiment: Experiment, files: Iterable[str | Path]) -> str:
    """In which way models.csv lags behind the experiment, in words; empty if it does not.

    It does if it is older than one of the configuration's `files`, or lacks a variant or seed.
    """
    table = Path(results, "models.csv")
    if any(Path(file).stat().st_mtime > table.stat().st_mtime for file in files):
        return "is older than the configuration"
    if experiment.spec.results_table is not None:
        return ""
    try:
        found = {(row["variant"], row["seed"]) for row in read_rows(table, need=["variant", "seed"]).rows}
    except FileError:
        return "is damaged"
    wanted = {(slug, str(seed)) for slug in experiment.variants for seed in experiment.seeds_of(slug)}
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
    settings |= settings.pop("objective_parameters")
    return settings


def collect_spec(experiment: Experiment, kept: Iterable[str] = ()) -> CollectSpec:
    """What the tables hold: the variants asked for, and rows of those `kept` from an earlier run.

    Settings are given as differences from the first variant's, since a command line is bounded.
    """
    slugs = [slug for slug in experiment.catalogue if slug in {*experiment.variants, *kept}]
    jobs = [*experiment.train_jobs.values()]
    baseline = applied_settings(jobs[0]) if jobs else {}
    entries = {}
    for slug in slugs:
        if slug in experiment.networks:
            entries[slug] = network_entry(experiment, slug)
            continue
        variant, job = experiment.catalogue[slug], experiment.job_behind(slug)
        seeds = experiment.seeds_of(slug)
        entries[slug] = VariantEntry(
            label=variant.label,
            family=variant.family,
            derived=variant.derived_from is not None,
            epochs=job.training.epochs,
            seeds=None if seeds == experiment.spec.seeds else seeds,
            settings=dict(applied_settings(job).items() - baseline.items()),
            measures=experiment.measures_of(slug),
            kept=slug not in experiment.variants,
        )
    return CollectSpec(
        variants=entries,
        baseline=baseline,
        seeds=experiment.spec.seeds,
        config=config_digest(experiment),
        series={
            name: measure_digest(name, spec.model_dump(mode="json"))
            for name, spec in experiment.measures.items()
            if MEASURES[name].of_snapshots
        },
    )


def network_entry(experiment: Experiment, slug: str) -> VariantEntry:
    """What the tables say of a network of others."""
    variant = experiment.networks[slug]
    seeds = experiment.seeds_of(slug)
    return VariantEntry(
        label=variant.label,
        family=variant.family,
        derived=not variant.network.correlate,
        external=True,
        seeds=None if seeds == experiment.spec.seeds else seeds,
        measures=experiment.measures_of(slug),
    )


class Others(NamedTuple):
    """Variants in an experiment's tables that a run does not ask for: those whose rows stay, and those whose
    rows go, since they were made with other settings."""

    kept: list[str]
    lost: list[str]


def other_variants(experiment: Experiment, table: Path) -> Others:
    """What becomes of the rows in models.csv of variants that are not asked for."""
    found = Others([], [])
    try:
        rows = read_rows(table, need=["variant", "seed", "checkpoint"]).rows
    except FileError:
        return found
    by_slug: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        if row["variant"] not in experiment.variants:
            by_slug.setdefault(row["variant"], []).append(row)
    for slug, own in by_slug.items():
        current = slug in experiment.catalogue and _made_as_now(experiment, slug, own)
        (found.kept if current else found.lost).append(slug)
    return found


def _made_as_now(experiment: Experiment, slug: str, rows: list[dict[str, str]]) -> bool:
    """Whether the rows of a variant have the settings it would be trained and measured with, and all of its
    seeds."""
    try:
        job = experiment.job_behind(slug)
    except ConfigError:
        return False
    expected = {f"setting_{name}": value for name, value in applied_settings(job).items()}
    if expected["setting_precision"] == "auto":
        del expected["setting_precision"]
    expected |= {f"{PREFIX}config": config_digest(experiment), f"{PREFIX}version": __version__}
    digests = {
        name: measure_digest(name, experiment.measures[name].for_variant(slug).model_dump(mode="json"))
        for name in experiment.measures_of(slug)
        if not MEASURES[name].of_snapshots
    }
    for row in rows:
        made = {
            name: digest
            for name, digest in digests.items()
            if row["checkpoint"] in MEASURES[name].checkpoints
        }
        cells = expected | {f"{PREFIX}{name}": digest for name, digest in made.items()}
        if any(row.get(name) != ("" if value is None else str(value)) for name, value in cells.items()):
            return False
    wanted = {str(seed) for seed in experiment.seeds_of(slug)}
    return wanted <= {row["seed"] for row in rows}


def config_digest(experiment: Experiment) -> str:
    """What makes runs of an experiment comparable, in eight digits: data, network and the baseline's
    training, but not where files lie, and not the precision, which each row tells. Defaults are left
    out, so that a setting that is added to the kit later makes no difference."""
    spec, given = experiment.spec, {"mode": "json", "exclude_defaults": True}
    return digest(
        {
            "data": spec.data.model_dump(**given, exclude={"path"}),
            "model": experiment.baseline.model.model_dump(**given),
            "training": experiment.baseline.training.model_dump(**given, exclude={"precision"}),
            "minimum_batch_size": spec.minimum_batch_size,
        }
    )


def verdicts(claims: str | Path) -> str:
    """The table of claims as a line each for the end of a run: verdict, and the first statistic that
    decides it."""
    try:
        rows = [row for row in read_rows(Path(claims), need=["decides"]).rows if row["decides"] == "yes"]
    except FileError as error:  # what was run counts
        return f"note: no verdicts ({error})"
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
