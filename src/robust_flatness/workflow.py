"""What the Snakemake workflow asks of the library while it is planned; nothing here imports torch."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from shlex import quote
from typing import Any

from robust_flatness.config import TrainJob
from robust_flatness.errors import ConfigError, FileError
from robust_flatness.experiment import Experiment
from robust_flatness.measures.base import CHECKPOINTS
from robust_flatness.tables.collect import CollectSpec, VariantEntry, fingerprint
from robust_flatness.tables.rows import read_rows

#: Targets, and folders of output files, that need nothing but the tables of results.
DRAWING_TARGETS = ("figures", "tables", "page")
DRAWING_FOLDERS = ("figures/", "paper_tables/", "report/")


def only_draws(targets: Iterable[str | Path]) -> bool:
    """Whether the targets of a `snakemake` command are figures and tables alone."""
    names = [str(target) for target in targets]
    return bool(names) and all(
        name in DRAWING_TARGETS or name.removeprefix("./").startswith(DRAWING_FOLDERS) for name in names
    )


def check_words(arguments: Sequence[str]) -> None:
    """Check the words after `--configfile` (files) and `--config` (settings) of a `snakemake` command.

    Both options take several words, so Snakemake would take a target after them for one.

    Raises
    ------
    ConfigError
        If a word is neither; the message says where targets go.
    """
    for position, option in enumerate(arguments):
        words = [*takewhile(lambda word: not word.startswith("-"), arguments[position + 1 :])]
        if option in ("--configfile", "--configfiles"):
            wrong = [word for word in words if not Path(word).is_file()]
            what = "files"
        elif option in ("--config", "-C"):
            wrong, what = [word for word in words if "=" not in word], "settings (name=value)"
        else:
            continue
        if wrong:
            raise ConfigError(
                f"{option} takes all words up to the next option for {what}, but {', '.join(wrong)} is not "
                "one; write targets first, or after --"
            )


def gpus_here() -> int:
    """Number of NVIDIA GPUs of this machine that jobs may use, counted without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    return len([path for path in Path("/dev").glob("nvidia*") if path.name[6:].isdigit()])


def plain_executable(executable: str, *, here_alone: bool) -> str:
    """Return a path of Python that a shell takes without quotes, since Snakemake does not quote it.

    If the path of the environment has a space, this is a path through a link in a temporary folder, which is
    removed when this process ends.

    Raises
    ------
    ConfigError
        If a link is needed but jobs run on other machines too (not `here_alone`).
    """
    if quote(executable) == executable:
        return executable
    if not here_alone:
        raise ConfigError(
            f"{executable}: Snakemake does not quote this path; make the environment in a folder without "
            "spaces"
        )
    path = Path(executable)
    folder = tempfile.mkdtemp(prefix="robust-flatness-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    link = Path(folder, "environment")
    link.symlink_to(path.parents[1].absolute(), target_is_directory=True)
    return str(link / path.parent.name / path.name)


def why_stale(results: Path, experiment: Experiment, files: Iterable[str | Path]) -> str:
    """Return how the tables lag behind the experiment, or an empty text."""
    table = Path(results, "networks.csv")
    if any(Path(file).stat().st_mtime > table.stat().st_mtime for file in files):
        return "are older than the configuration"
    if experiment.spec.results_table is not None:
        return ""
    found = {(row["variant"], row["seed"]) for row in read_rows(table, need=["variant", "seed"])}
    wanted = {(slug, str(seed)) for slug in experiment.variants for seed in experiment.seeds_of(slug)}
    lacking = len(wanted - found)
    return f"lack {lacking} of {len(wanted)} pairs of variant and seed" if lacking else ""


def of_older_version(results: Path) -> str:
    """Return a message if an earlier version wrote the results in files that this one does not read."""
    if (results / "models.csv").exists() and not (results / "records.csv").exists():
        return (
            f"{results}: results of an earlier version of this package, which are left as they are; move the "
            "folder away, or choose another name (--config experiment=NAME); results_table: reads its "
            "models.csv"
        )
    return ""


def applied_settings(job: TrainJob) -> dict[str, Any]:
    """The settings of a training as columns of the tables."""
    settings = {
        **job.model.model_dump(),
        **job.training.model_dump(mode="json", exclude={"augmentation", "milestones"}),
        **job.training.augmentation.model_dump(),
        "milestones": "/".join(f"{milestone:g}" for milestone in job.training.milestones),
    }
    settings["model"] = settings.pop("name")
    return settings | settings.pop("objective_parameters")


def measuring_job(experiment: Experiment, slug: str) -> dict[str, Any]:
    """The settings of the measuring job of a variant, as `MeasuringJob` takes them."""
    network = slug in experiment.networks
    return {
        "variant": slug,
        "checkpoints": CHECKPOINTS[:1] if network else CHECKPOINTS,
        "measures": {name: _settings(experiment, name, slug) for name in experiment.measures_of(slug)},
        "config": config_fingerprint(experiment),
        "training": "" if network else fingerprint(applied_settings(experiment.job_behind(slug))),
    }


def _settings(experiment: Experiment, name: str, slug: str) -> dict[str, Any]:
    return experiment.measures[name].for_variant(slug).model_dump(mode="json")


def collect_spec(experiment: Experiment, results: Path) -> CollectSpec:
    """Return the variants requested, and others of the catalogue that have records in `results`.

    Settings are given as differences from the first variant's, since a command line is bounded.
    """
    on_disk = {path.parents[1].name for path in results.glob("*/seed-*/records.csv")}
    jobs = [*experiment.train_jobs.values()]
    baseline = applied_settings(jobs[0]) if jobs else {}
    entries = {}
    for slug, variant in experiment.catalogue.items():
        if slug not in experiment.variants and slug not in on_disk:
            continue
        entry = {"label": variant.label, "family": variant.family}
        if slug in experiment.networks:
            entries[slug] = VariantEntry(**entry, derived=not variant.network.correlate, external=True)
            continue
        try:
            job = experiment.job_behind(slug)
        except ConfigError:
            continue
        applied = applied_settings(job)
        entries[slug] = VariantEntry(
            **entry,
            derived=variant.derived_from is not None,
            epochs=job.training.epochs,
            settings={name: value for name, value in applied.items() if baseline.get(name) != value},
        )
    return CollectSpec(
        variants=entries,
        baseline=baseline,
        config=config_fingerprint(experiment),
        measures={
            slug: {
                name: fingerprint(_settings(experiment, name, slug)) for name in experiment.measures_of(slug)
            }
            for slug in entries
        },
    )


def config_fingerprint(experiment: Experiment) -> str:
    """Fingerprint of what makes runs of an experiment comparable: data, network and the baseline's training.

    The data's path and the precision are left out, and so are defaults, so that it stays equal when a later
    version of this package adds a setting.
    """
    spec, given = experiment.spec, {"mode": "json", "exclude_defaults": True}
    return fingerprint(
        {
            "data": spec.data.model_dump(**given, exclude={"path"}),
            "model": experiment.baseline.model.model_dump(**given),
            "training": experiment.baseline.training.model_dump(**given, exclude={"precision"}),
            "minimum_batch_size": spec.minimum_batch_size,
        }
    )


def verdicts(claims: Path) -> str:
    """A line for each claim at the end of a run: the verdict and the first statistic that decides it."""
    try:
        rows = [row for row in read_rows(claims, need=["decides"]) if row["decides"] == "yes"]
    except FileError as error:
        return f"note: no verdicts ({error})"
    width = max((len(row["claim"]) for row in rows), default=0)
    lines = []
    for claim in dict.fromkeys(row["claim"] for row in rows):
        first = next(row for row in rows if row["claim"] == claim)
        words = first["note"]
        if first["value"]:
            words = f"{first['statistic']}: {float(first['value']):.2f}"
        if first["value"] and first["low"]:
            words += f" [{float(first['low']):.2f}, {float(first['high']):.2f}]"
        lines.append(f"  {claim:<{width}}  {first['verdict']:<14}  {words}")
    return "\n".join(["The talk's claims on this experiment:", *lines, f"({claims})"])
