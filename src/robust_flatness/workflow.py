"""Functions that the Snakemake workflow calls while planning; nothing here imports torch."""

import functools
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from robust_flatness.config import DataSpec, TrainJob
from robust_flatness.config.data import CLASSES, TEST_FOLDERS, cifar10_files
from robust_flatness.config.kinds import source_digest, source_files
from robust_flatness.config.measures import MeasureSettings
from robust_flatness.errors import ConfigError
from robust_flatness.experiment import Experiment
from robust_flatness.files import canonical_json
from robust_flatness.measures.base import CHECKPOINTS
from robust_flatness.tables.collect import CollectSpec, fingerprint


def gpus_here() -> int:
    """Return the number of NVIDIA GPUs that jobs may use, counted without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    return len([path for path in Path("/dev").glob("nvidia*") if path.name[6:].isdigit()])


def applied_settings(job: TrainJob) -> dict[str, Any]:
    """Return the settings of a training, with a digest of a user-defined objective, as columns of tables."""
    settings = {
        **job.model.model_dump(),
        **job.training.model_dump(mode="json", exclude={"augmentation", "milestones"}),
        **job.training.augmentation.model_dump(),
        "milestones": "/".join(f"{milestone:g}" for milestone in job.training.milestones),
    }
    settings["model"] = settings.pop("name")
    code = source_digest([job.training.objective])
    return settings | settings.pop("objective_parameters") | ({"objective_code": code} if code else {})


def measure_fingerprint(settings: MeasureSettings) -> str:
    """Return the fingerprint of a measure's settings, and of the source of user-defined functions in them."""
    given, code = settings.model_dump(mode="json"), source_digest(getattr(settings, "own", {}).values())
    return fingerprint([given, code] if code else given)


def measuring_job(experiment: Experiment, slug: str) -> str:
    """Return the settings of the measuring job of a variant (`MeasuringJob`) as JSON."""
    network, measures = slug in experiment.networks, experiment.measures_of(slug)
    job = {
        "variant": slug,
        "checkpoints": CHECKPOINTS[:1] if network else CHECKPOINTS,
        "measures": {name: settings.model_dump(mode="json") for name, settings in measures.items()},
        "config": config_fingerprint(experiment),
        "training": "" if network else fingerprint(applied_settings(experiment.job_behind(slug))),
    }
    own = {name: measure_fingerprint(given) for name, given in measures.items() if getattr(given, "own", {})}
    return canonical_json(job | ({"fingerprints": own} if own else {}))


def measuring_code(experiment: Experiment, slug: str) -> list[Path]:
    """Return the source files of the user's measures of a variant, and of the factory of a network."""
    paths = [experiment.networks[slug].network.model] if slug in experiment.networks else []
    for settings in experiment.measures_of(slug).values():
        paths += getattr(settings, "own", {}).values()
    return [file for path in paths for file in source_files(path)]


def data_files(spec: DataSpec) -> list[Path]:
    """Return the files of a dataset of the user's own, unless it is a folder of images."""
    files = [spec.pool] if spec.pool else []
    if spec.path and spec.name == "npz":
        files.append(spec.path)
    elif spec.path and spec.name == "cifar10":
        files += cifar10_files(spec.path)
    return [Path(file) for file in files]


def contents_digest(files: Iterable[Path]) -> str:
    """Return a digest of the contents of files, a parameter of rules: Snakemake itself notices an input only
    if it is newer than the outputs."""
    digest = hashlib.sha256()
    for path in files:
        if path.is_file():  # Snakemake reports a missing input
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


@functools.cache
def data_state(spec: DataSpec) -> str:
    """Return a digest of the files of a user's dataset: of their contents or, in a folder of images, of their
    names, sizes and times of modification; empty for other datasets."""
    if spec.path is None or spec.name in CLASSES or spec.name == "npz":
        files = data_files(spec)
        return contents_digest(files) if files else ""
    parts = ("train", *TEST_FOLDERS) if spec.name == "folder" else (".",)
    # with what symbolic links refer to, as torchvision reads it
    folders = [each for part in parts for each in os.walk(Path(spec.path, part), followlinks=True)]
    found = (Path(folder, name) for folder, _, names in folders for name in names)
    files = sorted(path for path in found if path.is_file())
    states = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return fingerprint(states)


def collect_spec(experiment: Experiment, results: Path) -> CollectSpec:
    """Return the requested variants, and others of the catalogue with records in `results`. Settings are
    differences from the first variant's, since the length of a command line is limited."""
    on_disk = {path.parents[1].name for path in results.glob("*/seed-*/records.csv")}
    entries, applied, measures = {}, {}, {}
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
            applied[slug] = applied_settings(job)
            entry |= {"derived": variant.derived_from is not None, "epochs": job.training.epochs}
        entries[slug] = entry
        given = experiment.measures_of(slug).items()
        measures[slug] = {name: measure_fingerprint(settings) for name, settings in given}
    first = next(map(applied_settings, experiment.train_jobs.values()), {})
    # only settings that all variants have: a difference can change a setting, but not remove it
    shared = [name for name in first if all(name in settings for settings in applied.values())]
    baseline = {name: first[name] for name in shared}
    for slug, settings in applied.items():
        differing = [name for name in settings if name not in baseline or baseline[name] != settings[name]]
        entries[slug]["settings"] = {name: settings[name] for name in differing}
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
