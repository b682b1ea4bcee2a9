"""Measure networks of an experiment again and compare with their records."""

import random
import tempfile
from pathlib import Path

import numpy as np

from robust_flatness.checkpoints import load_checkpoint
from robust_flatness.data import load_dataset
from robust_flatness.errors import FileError
from robust_flatness.measures.registry import MEASURES
from robust_flatness.run.measuring import MeasuringJob, measure_network
from robust_flatness.seeding import derive_seed
from robust_flatness.tables.records import read_network, read_records

#: Largest difference that counts as agreement: relative to max(1, |value|); for errors, in examples. On one
#: machine, with the same torch and number of threads, results are bit-identical. Elsewhere sums are rounded
#: in another order, and a signed gradient step turns a rounding error at 0 into a step of full size for
#: single pixels.
TOLERANCE = 0.01
ERROR_TOLERANCE = 2
KEY = ("checkpoint", "measure", "metric", "loss", "split", "xi", "coordinate")


def sample_files(directory: Path, count: int | None, seed: int) -> list[Path]:
    """Return `count` record files below the folder of an experiment, chosen by `seed`; None: all."""
    files = sorted(directory.glob("*/seed-*/records.csv"))
    if not files:
        raise FileError(f"{directory}: no <variant>/seed-<seed>/records.csv; give results/<experiment>")
    chosen = random.Random(derive_seed(seed, "verify")).sample(files, min(count or len(files), len(files)))
    return sorted(chosen)


def verify_network(path: Path, device: str = "cpu", threads: int = 1) -> tuple[bool, str]:
    """Measure the network of `path` again, from its checkpoints and data; see `compared`."""
    provenance, _ = read_network(path)
    folder, seed = path.parent, int(path.parent.name.removeprefix("seed-"))
    data = folder.parents[1] / f"data/seed-{seed}.safetensors"
    if load_dataset(data).checksum != provenance["data_sha256"]:
        raise FileError(f"{data}: not the data measured in {path}")
    for name, checkpoint in provenance["checkpoints"].items():
        weights = folder / f"checkpoints/{name}.safetensors"
        if load_checkpoint(weights).metadata.sha256 != checkpoint["sha256"]:
            raise FileError(f"{weights}: not the checkpoint measured in {path}")
    names, settings = tuple(provenance["checkpoints"]), provenance["settings"]
    job = MeasuringJob(variant=folder.parent.name, checkpoints=names, measures=settings)
    with tempfile.TemporaryDirectory() as temporary:
        again = Path(temporary)
        for name in ("checkpoints", "history.csv"):
            if (folder / name).exists():
                (again / name).symlink_to((folder / name).resolve())
        measure_network(job, data, again, seed, device, threads, report=lambda message: None)
        return compared(path, again / "records.csv")


def compared(path: Path, again: Path) -> tuple[bool, str]:
    """Return whether two files of records of one network agree within tolerance, and a one-line summary."""
    old, new = (read_records(file).set_index([*KEY]) for file in (path, again))
    if not old.index.sort_values().equals(new.index.sort_values()):
        return False, f"{path}: the records DIFFER: other measures or radii"
    values = new["value"].reindex(old.index)
    same = (old["value"] == values) | (old["value"].isna() & values.isna())
    if same.all():
        return True, f"{path}: {len(old)} records, identical"
    metrics = [MEASURES[measure].metrics.get(metric) for _, measure, metric, *_ in old.index]
    of_errors = [metric is not None and metric.kind == "error" for metric in metrics]
    allowed = TOLERANCE * old["value"].abs().clip(lower=1)
    allowed = allowed.mask(of_errors, 100 * ERROR_TOLERANCE / old["n"].fillna(1))
    relative = ((old["value"] - values).abs() / allowed).fillna(np.inf).mask(same, 0.0).to_numpy()
    worst = int(relative.argmax())
    where = ", ".join(str(part) for part in old.index[worst] if str(part) not in ("", "nan"))
    agrees = bool(relative[worst] <= 1)
    others = f"{same.sum()} of {len(old)} records identical, the others {'agree' if agrees else 'DIFFER'}"
    largest = f"largest difference {relative[worst]:.2g} of the tolerance ({where})"
    return agrees, f"{path}: {others}: {largest}"
