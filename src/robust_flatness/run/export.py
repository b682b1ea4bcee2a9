"""Checkpoints in RobustBench's form (Croce et al. 2021): weights, and a JSON description with accuracies."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from robust_flatness.checkpoints import LOADED, load_checkpoint
from robust_flatness.errors import FileError
from robust_flatness.files import atomic_path, write_text
from robust_flatness.tables.records import read_network, read_records

#: The fields of a RobustBench entry, in its order.
FIELDS = (
    "link", "name", "authors", "additional_data", "number_forward_passes", "dataset", "venue",
    "architecture", "eps", "clean_acc", "reported", "autoattack_acc", "footnote",
)  # fmt: skip


def export_checkpoint(checkpoint: Path, directory: Path, dataset: str) -> tuple[Path, Path]:
    """Write the weights to `models/<dataset>/<threat model>/<name>.pt` and their description to
    `model_info/<dataset>/<threat model>/<name>.json` below `directory`, as in RobustBench's repository.

    The weights are the state dict of the network that `load_checkpoint` returns. The threat model, `Linf` or
    `L2`, is that of the attacks in `records.csv` beside the checkpoints, or else of the training. Accuracies
    (in per cent) are those of `records.csv`, if robustness has been measured; robust accuracy under a reduced
    AutoAttack is stated in the footnote alone.
    """
    loaded = load_checkpoint(checkpoint)
    metadata, model = loaded.metadata, loaded.metadata.model
    records, attacks, measured = checkpoint.parents[1] / "records.csv", [], {}
    if records.exists():
        provenance, _ = read_network(records)
        described = provenance["checkpoints"].get(checkpoint.stem, {})
        if described.get("sha256") != metadata.sha256:
            raise FileError(f"{records}: of another checkpoint than {checkpoint}; measure that again")
        attacks = [given["attack"] for given in provenance["settings"].values() if "attack" in given]
        if settings := provenance["settings"].get("robustness"):
            measured = _accuracies(records, checkpoint.stem, settings, described["notes"])
    norm = attacks[0].get("norm", "linf") if attacks else metadata.norm
    entry = {
        "name": f"{metadata.variant}, seed {metadata.seed}, {checkpoint.stem} checkpoint",
        "additional_data": metadata.variant == "unlabeled",
        "number_forward_passes": 1,
        "dataset": dataset,
        "architecture": model.get(LOADED) or f"{model['name']}, width {model['width']}",
        **measured,
    }
    name = f"{dataset}/{norm.capitalize()}/{metadata.variant}_seed-{metadata.seed}_{checkpoint.stem}"
    weights, info = (Path(directory, path) for path in (f"models/{name}.pt", f"model_info/{name}.json"))
    content = io.BytesIO()  # torch's own writer raises RuntimeError on a full disk
    torch.save(loaded.model.state_dict(), content)
    with atomic_path(weights) as temporary:
        temporary.write_bytes(content.getbuffer())
    write_text(info, json.dumps({field: entry.get(field) for field in FIELDS}, indent=2) + "\n")
    return weights, info


def _accuracies(
    path: Path, name: str, settings: Mapping[str, Any], notes: Mapping[str, str]
) -> dict[str, Any]:
    """Return radius and accuracies of the checkpoint `name` in the records `path`."""
    records = read_records(path)
    rows = (records["measure"] == "robustness") & (records["split"] == "test")
    values = records[rows & (records["checkpoint"] == name)].set_index("metric")
    entry = {"eps": settings["attack"]["epsilon"], "clean_acc": f"{100 - values['value']['err']:.2f}"}
    if "rerr_aa" in values.index:
        robust = f"{100 - values['value']['rerr_aa']:.2f}"
        examples = f"the first {values['n']['rerr_aa']:.0f} test images"
        entry["footnote"] = f"{robust} % under {notes['autoattack']} on {examples}."
        if settings["autoattack"]["version"] == "standard":
            entry |= {"autoattack_acc": robust, "footnote": f"AutoAttack on {examples}."}
    return entry
