"""Functions that the Snakemake workflow calls while planning; nothing here imports torch."""

import atexit
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from shlex import quote
from typing import Any

from robust_flatness.config import DataSpec, TrainJob, load_yaml
from robust_flatness.config.data import CIFAR10_FILES, CLASSES
from robust_flatness.config.kinds import source_files
from robust_flatness.errors import ConfigError, FileError
from robust_flatness.experiment import Experiment
from robust_flatness.measures.base import CHECKPOINTS
from robust_flatness.tables.collect import CollectSpec, VariantEntry, fingerprint
from robust_flatness.tables.records import read_csv

#: Targets, and folders of output files, that need only the tables of results.
DRAWING = ("figures", "tables", "page")
DRAWING_FOLDERS = ("figures/", "paper_tables/", "report/")


def only_draws(targets: Iterable[str | Path]) -> bool:
    """Return whether the targets of a `snakemake` command are only figures, tables and pages."""
    names = [str(target).removeprefix("./") for target in targets]
    return bool(names) and all(name in DRAWING or name.startswith(DRAWING_FOLDERS) for name in names)


def check_words(arguments: Sequence[str]) -> None:
    """Raise `ConfigError` for words after `--configfile` or `--config` of a `snakemake` command that are no
    files or settings. Both options take all words up to the next option, targets included."""
    for position, option in enumerate(arguments):
        words = takewhile(lambda word: not word.startswith("-"), arguments[position + 1 :])
        if option in ("--configfile", "--configfiles"):
            what, wrong = "files", [word for word in words if not Path(word).is_file()]
        elif option in ("--config", "-C"):
            what, wrong = "settings (name=value)", [word for word in words if "=" not in word]
        else:
            continue
        if wrong:
            taken = f"{option} takes all words up to the next option for {what}"
            raise ConfigError(f"{taken}, but {wrong[0]} is not one; write targets first, or after --")


def check_name(experiment: str, configs: Iterable[Mapping[str, Any]], folder: Path) -> None:
    """Raise `ConfigError` if `experiment`, the name given on the command line, is that of a config file in
    `folder` which is not among the `configs` that were loaded."""
    if experiment not in [values.get("experiment") for values in configs]:
        for path in sorted(folder.glob("*.yaml")):
            if load_yaml(path).get("experiment") == experiment:
                raise ConfigError(
                    f"experiment: {experiment} is the experiment of another file; "
                    f"give --configfile {path} instead of --config"
                )


def gpus_here() -> int:
    """Return the number of NVIDIA GPUs that jobs may use, counted without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    return len([path for path in Path("/dev").glob("nvidia*") if path.name[6:].isdigit()])


def plain_executable(executable: str, *, here_alone: bool) -> str:
    """Return a path of Python that needs no quotes in a shell, since Snakemake does not quote it. For an
    environment whose path has a space, it is a symbolic link in a temporary folder, which is removed when
    this process ends, so that all jobs must run on this machine (`here_alone`)."""
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
    """Return why the tables are out of date with the experiment, or an empty string."""
    table = Path(results, "networks.csv")
    if any(Path(file).stat().st_mtime > table.stat().st_mtime for file in files):
        return "are older than the configuration"
    if experiment.spec.results_table is not None:
        return ""
    networks = read_csv(table, need=["variant", "seed"])
    found = {*zip(networks["variant"], networks["seed"], strict=True)}
    wanted = {(slug, str(seed)) for slug in experiment.variants for seed in experiment.seeds_of(slug)}
    lacking = len(wanted - found)
    return f"lack {lacking} of {len(wanted)} pairs of variant and seed" if lacking else ""


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
    """Return the settings of the measuring job of a variant (`MeasuringJob`)."""
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
    files = [spec.pool] if spec.pool else []
    if spec.path and spec.name == "npz":
        files.append(spec.path)
    elif spec.path and spec.name == "cifar10":
        files += [f"{spec.path}/{name}" for name in CIFAR10_FILES]
    return [Path(file) for file in files]


def folder_state(spec: DataSpec) -> str:
    """Return a digest of names, sizes and times of modification of the files in a folder of images; empty for
    other datasets."""
    if spec.path is None or spec.name in CLASSES or spec.name == "npz":
        return ""
    files = sorted(path for path in Path(spec.path).rglob("*") if path.is_file())
    states = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return fingerprint(states)


def _measures(experiment: Experiment, slug: str) -> dict[str, dict[str, Any]]:
    settings = {name: experiment.measures[name].for_variant(slug) for name in experiment.measures_of(slug)}
    return {name: given.model_dump(mode="json") for name, given in settings.items()}


def collect_spec(experiment: Experiment, results: Path) -> CollectSpec:
    """Return the requested variants, and others of the catalogue with records in `results`. Settings are
    differences from the first variant's, since the length of a command line is limited."""
    on_disk = {path.parents[1].name for path in results.glob("*/seed-*/records.csv")}
    baseline = next(map(applied_settings, experiment.train_jobs.values()), {})
    entries, measures = {}, {}
    for slug, variant in experiment.catalogue.items():
        if slug not in experiment.variants and slug not in on_disk:
            continue
        entry: dict[str, Any] = {"label": variant.label, "family": variant.family}
        if slug in experiment.networks:
            entry |= {"derived": not variant.network.correlate, "external": True}
        else:
            try:
                job = experiment.job_behind(slug)
            except ConfigError:  # not valid in this experiment
                continue
            applied = applied_settings(job)
            entry["settings"] = {name: v for name, v in applied.items() if baseline.get(name) != v}
            entry |= {"derived": variant.derived_from is not None, "epochs": job.training.epochs}
        entries[slug] = VariantEntry(**entry)
        given = _measures(experiment, slug)
        measures[slug] = {name: fingerprint(settings) for name, settings in given.items()}
    config = config_fingerprint(experiment)
    return CollectSpec(variants=entries, baseline=baseline, config=config, measures=measures)


def config_fingerprint(experiment: Experiment) -> str:
    """Return the fingerprint of data, network and the baseline's training, which comparable runs share.
    Without the data's path and the precision, and without defaults, so that it does not change when a later
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
        rows = read_csv(claims, need=["decides"]).query("decides == 'yes'").to_dict("records")
    except FileError as error:  # no reason for a finished run to fail
        return f"note: no verdicts ({error})"
    width = max((len(row["claim"]) for row in rows), default=0)
    lines: dict[str, str] = {}
    for row in rows:
        numbers = [f"{float(row[name]):.2f}" for name in ("value", "low", "high") if row[name]]
        interval = f" [{', '.join(numbers[1:])}]" if numbers[1:] else ""
        words = f"{row['statistic']}: {numbers[0]}{interval}" if numbers else row["note"]
        lines.setdefault(row["claim"], f"  {row['claim']:<{width}}  {row['verdict']:<14}  {words}")
    return "\n".join(["The talk's claims on this experiment:", *lines.values(), f"({claims})"])
