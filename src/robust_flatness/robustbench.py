"""Checkpoints in RobustBench's form (Croce et al. 2021): weights, and a JSON of what is claimed of them."""

import io
import json
from pathlib import Path
from typing import Any

import torch

from robust_flatness.checkpoints import LOADED, load_checkpoint
from robust_flatness.errors import FileError
from robust_flatness.files import atomic_path, write_text

#: The fields of a RobustBench entry, in its order.
FIELDS = (
    "link", "name", "authors", "additional_data", "number_forward_passes", "dataset", "venue",
    "architecture", "eps", "clean_acc", "reported", "autoattack_acc", "footnote",
)  # fmt: skip
THREAT_MODEL = "Linf"


def export_checkpoint(
    checkpoint: Path, directory: Path, dataset: str = "cifar10", name: str | None = None
) -> tuple[Path, Path]:
    """Write the weights to `models/<dataset>/Linf/<name>.pt` and what was measured to
    `model_info/<dataset>/Linf/<name>.json` below `directory`, as RobustBench keeps them.

    The weights are a state dict, to be loaded into the network that `load_checkpoint` returns. Accuracies are
    those of the checkpoint's `robustness.json` (in per cent), where it lies in `measures/` beside the
    checkpoints; that of AutoAttack is left out, and named in the footnote, where not its standard version
    was run.

    Raises
    ------
    FileError
        If the checkpoint cannot be read, or the measure is of another one.
    """
    checkpoint = Path(checkpoint)
    loaded = load_checkpoint(checkpoint)
    metadata = loaded.metadata
    name = name or f"{metadata.variant}_seed-{metadata.seed}_{checkpoint.stem}"
    weights = Path(directory, "models", dataset, THREAT_MODEL, f"{name}.pt")
    content = io.BytesIO()  # torch's own writer raises RuntimeError on a full disk
    torch.save(loaded.model.state_dict(), content)
    with atomic_path(weights) as temporary:
        temporary.write_bytes(content.getbuffer())
    entry = {
        "name": f"{metadata.variant}, seed {metadata.seed}, {checkpoint.stem} checkpoint",
        "additional_data": metadata.variant == "unlabeled",
        "number_forward_passes": 1,
        "dataset": dataset,
        "architecture": metadata.model.get(LOADED)
        or f"{metadata.model['name']}, width {metadata.model['width']}",
    }
    entry |= _measured(checkpoint, loaded.sha256)
    info = Path(directory, "model_info", dataset, THREAT_MODEL, f"{name}.json")
    write_text(info, json.dumps({field: entry.get(field) for field in FIELDS}, indent=2) + "\n")
    return weights, info


def _measured(checkpoint: Path, sha256: str) -> dict[str, Any]:
    path = checkpoint.parents[1] / "measures" / checkpoint.stem / "robustness.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        values, spec, measured = content["values"], content["spec"], content["checkpoint"]["sha256"]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(f"{path}: cannot be read ({error}); measure the checkpoint again") from None
    if measured != sha256:
        raise FileError(f"{path}: is of another checkpoint than {checkpoint}; measure that again")
    entry: dict[str, Any] = {
        "eps": spec["attack"]["epsilon"],
        "clean_acc": f"{100 - values['test_err']:.2f}",
    }
    robust, attack = values.get("test_rerr_aa"), values.get("autoattack")
    examples = f"the first {values['robust_test_examples']} test images"
    if robust is not None and spec["autoattack"]["version"] == "standard":
        entry |= {"autoattack_acc": f"{100 - robust:.2f}", "footnote": f"AutoAttack on {examples}."}
    elif robust is not None:
        entry["footnote"] = f"{100 - robust:.2f} % under {attack} on {examples}."
    return entry
