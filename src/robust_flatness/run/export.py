"""Checkpoints in RobustBench's form (Croce et al. 2021): weights, and a JSON description with accuracies."""

import io
import json
from pathlib import Path
from typing import Any

import torch

from robust_flatness.attacks.autoattack import LIBRARY_NORMS
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
    `model_info/<dataset>/<threat model>/<name>.json` below `directory`, as in RobustBench's repository. The
    threat model is the one of `records.csv`, `Linf` or `L2`; `Linf` if robustness has not been measured.

    The weights are the state dict of the network that `load_checkpoint` returns. Accuracies (in per cent) are
    those of `records.csv` beside the checkpoints, if robustness has been measured. Robust accuracy under a
    reduced AutoAttack is stated in the footnote alone.
    """
    loaded = load_checkpoint(checkpoint)
    metadata, model = loaded.metadata, loaded.metadata.model
    measured = _measured(checkpoint, metadata.sha256)
    threat = measured.pop("threat_model", LIBRARY_NORMS["linf"])
    entry = {
        "name": f"{metadata.variant}, seed {metadata.seed}, {checkpoint.stem} checkpoint",
        "additional_data": metadata.variant == "unlabeled",
        "number_forward_passes": 1,
        "dataset": dataset,
        "architecture": model.get(LOADED) or f"{model['name']}, width {model['width']}",
        **measured,
    }
    name = f"{dataset}/{threat}/{metadata.variant}_seed-{metadata.seed}_{checkpoint.stem}"
    weights, info = (Path(directory, path) for path in (f"models/{name}.pt", f"model_info/{name}.json"))
    content = io.BytesIO()  # torch's own writer raises RuntimeError on a full disk
    torch.save(loaded.model.state_dict(), content)
    with atomic_path(weights) as temporary:
        temporary.write_bytes(content.getbuffer())
    write_text(info, json.dumps({field: entry.get(field) for field in FIELDS}, indent=2) + "\n")
    return weights, info


def _measured(checkpoint: Path, sha256: str) -> dict[str, Any]:
    path = checkpoint.parents[1] / "records.csv"
    if not path.exists():
        return {}
    provenance, _ = read_network(path)
    described = provenance["checkpoints"].get(checkpoint.stem, {})
    if described.get("sha256") != sha256:
        raise FileError(f"{path}: of another checkpoint than {checkpoint}; measure that again")
    settings, records = provenance["settings"].get("robustness"), read_records(path)
    if settings is None:
        return {}
    of_test = (records["measure"] == "robustness") & (records["split"] == "test")
    values = records[of_test & (records["checkpoint"] == checkpoint.stem)].set_index("metric")
    attack = settings["attack"]
    entry = {"eps": attack["epsilon"], "clean_acc": f"{100 - values['value']['err']:.2f}"}
    entry["threat_model"] = LIBRARY_NORMS[attack.get("norm", "linf")]
    if "rerr_aa" in values.index:
        robust = f"{100 - values['value']['rerr_aa']:.2f}"
        examples = f"the first {values['n']['rerr_aa']:.0f} test images"
        if settings["autoattack"]["version"] == "standard":
            return entry | {"autoattack_acc": robust, "footnote": f"AutoAttack on {examples}."}
        entry["footnote"] = f"{robust} % under {described['notes']['autoattack']} on {examples}."
    return entry
