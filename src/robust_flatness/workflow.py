"""What the Snakemake workflow asks of the library while it is planned; nothing here imports torch."""

import atexit
import os
import tempfile
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from shlex import quote
from typing import Any

from robust_flatness.config import DataSpec, TrainJob
from robust_flatness.config.data import CIFAR10_FILES, CLASSES
from robust_flatness.config.kinds import source_files
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
    """Require files after `--configfile` and settings after `--config` of a `snakemake` command. Both options
    take all words up to the next option, so Snakemake would take a target after them for one."""
    kinds = {
        **dict.fromkeys(("--configfile", "--configfiles"), ("files", lambda word: Path(word).is_file())),
        **dict.fromkeys(("--config", "-C"), ("settings (name=value)", lambda word: "=" in word)),
    }
    for position, option in enumerate(arguments):
        what, fits = kinds.get(option, ("", bool))
        words = takewhile(lambda word: not word.startswith("-"), arguments[position + 1 :])
        if wrong := ", ".join(word for word in words if not fits(word)):
            taken = f"{option} takes all words up to the next option for {what}"
            raise ConfigError(f"{taken}, but {wrong} is not one; write targets first, or after --")


def gpus_here() -> int:
    """Return the number of NVIDIA GPUs that jobs may use, counted without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    return len([path for path in Path("/dev").glob("nvidia*") if path.name[6:].isdigit()])


def plain_executable(executable: str, *, here_alone: bool) -> str:
    """Return a path of Python that a shell takes without quotes, since Snakemake does not quote it. If the
    path of the environment has a space, it leads through a link in a temporary folder, which is removed when
    this process ends, so all jobs must run on this machine (`here_alone`)."""
    if quote(executable) == executable:
        return executable
    if not here_alone:
        raise ConfigError(f"{executable}: Snakemake does not quote this path; use a folder without spaces")
    path, folder = Path(executable), tempfile.TemporaryDirectory(prefix="robust-flatness-")
    atexit.register(folder.cleanup)
    link = Path(folder.name, "environment")
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
            f"{results}: results of an earlier version of this package; move the folder away or choose "
            "another name (--config experiment=NAME); results_table: reads its models.csv"
        )
    return ""


def applied_settings(job: TrainJob) -> dict[str, Any]:
    """Return the settings of a training as columns of the tables."""
    settings = {
        **job.model.model_dump(),
        **job.training.model_dump(mode="json", exclude={"augmentation", "milestones"}),
        **job.training.augmentation.model_dump(),
        "milestones": "/".join(f"{milestone:g}" for milestone in job.training.milestones),
    }
    settings["model"] = settings.pop("name")
    return settings | settings.pop("objective_parameters")


def measuring_job(experiment: Experiment, slug: str) -> dict[str, Any]:
    """Return the settings of the measuring job of a variant, as `MeasuringJob` takes them."""
    network = slug in experiment.networks
    return {
        "variant": slug,
        "checkpoints": CHECKPOINTS[:1] if network else CHECKPOINTS,
        "measures": _measures(experiment, slug),
        "config": config_fingerprint(experiment),
        "training": "" if network else fingerprint(applied_settings(experiment.job_behind(slug))),
    }


def training_code(experiment: Experiment, slug: str) -> list[Path]:
    """Return the source files of the user's objective in the training of a variant."""
    objective = experiment.train_jobs[slug].training.objective
    return source_files(objective) if ":" in objective else []


def measuring_code(experiment: Experiment, slug: str) -> list[Path]:
    """Return the source files of the user's measures of a variant, and of the factory of a network."""
    networks = [experiment.networks[slug].network.model] if slug in experiment.networks else []
    own = [path for given in _measures(experiment, slug).values() for path in given.get("own", {}).values()]
    return [file for path in [*networks, *own] for file in source_files(path)]


def data_files(spec: DataSpec) -> list[Path]:
    """Return the files of a dataset of the user's own, unless it is a folder of images."""
    path = Path(spec.path or "")
    if spec.path is None or spec.name == "npz":
        return [path] * (spec.path is not None)
    return [path / name for name in CIFAR10_FILES] if spec.name == "cifar10" else []


def folder_state(spec: DataSpec) -> str:
    """Return a digest of names, sizes and times of modification of the files in a folder of images; empty for
    other datasets."""
    if spec.path is None or spec.name in CLASSES or spec.name == "npz":
        return ""
    files = sorted(path for path in Path(spec.path).rglob("*") if path.is_file())
    states = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return fingerprint(states)


def _measures(experiment: Experiment, slug: str) -> dict[str, dict[str, Any]]:
    """Return the settings of the measures of a variant by name."""
    settings = {name: experiment.measures[name].for_variant(slug) for name in experiment.measures_of(slug)}
    return {name: given.model_dump(mode="json") for name, given in settings.items()}


def collect_spec(experiment: Experiment, results: Path) -> CollectSpec:
    """Return the variants requested, and others of the catalogue that have records in `results`. Settings are
    given as differences from the first variant's, since a command line is bounded."""
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
        changed = {name: v for name, v in applied_settings(job).items() if baseline.get(name) != v}
        entry |= {"derived": variant.derived_from is not None, "epochs": job.training.epochs}
        entries[slug] = VariantEntry(**entry, settings=changed)
    measures = {
        slug: {name: fingerprint(given) for name, given in _measures(experiment, slug).items()}
        for slug in entries
    }
    config = config_fingerprint(experiment)
    return CollectSpec(variants=entries, baseline=baseline, config=config, measures=measures)


def config_fingerprint(experiment: Experiment) -> str:
    """Return the fingerprint of what makes runs comparable: data, network and the baseline's training. The
    data's path and the precision are left out, and so are defaults, so that it stays equal when a later
    version of this package adds a setting."""
    spec, given = experiment.spec, {"mode": "json", "exclude_defaults": True}
    components = {
        "data": spec.data.model_dump(**given, exclude={"path"}),
        "model": spec.model.model_dump(**given),
        "training": spec.training.model_dump(**given, exclude={"precision"}),
        "minimum_batch_size": spec.minimum_batch_size,
    }
    return fingerprint(components)


def verdicts(claims: Path) -> str:
    """Return a line for each claim: the verdict and the first statistic that decides it."""
    try:
        rows = [row for row in read_rows(claims, need=["decides"]) if row["decides"] == "yes"]
    except FileError as error:
        return f"note: no verdicts ({error})"
    width = max((len(row["claim"]) for row in rows), default=0)
    lines = []
    for claim in dict.fromkeys(row["claim"] for row in rows):
        first = next(row for row in rows if row["claim"] == claim)
        words = f"{first['statistic']}: {float(first['value']):.2f}" if first["value"] else first["note"]
        if first["value"] and first["low"]:
            words += f" [{float(first['low']):.2f}, {float(first['high']):.2f}]"
        lines.append(f"  {claim:<{width}}  {first['verdict']:<14}  {words}")
    return "\n".join(["The talk's claims on this experiment:", *lines, f"({claims})"])
