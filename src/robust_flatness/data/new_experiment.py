"""A commented experiment for a user's own data, with sizes that fit it."""

import math
from pathlib import Path

import numpy as np
import yaml

from robust_flatness.config import NAME, parse_number
from robust_flatness.data.npz import Arrays, read_npz
from robust_flatness.errors import ConfigError
from robust_flatness.experiment import load_experiment
from robust_flatness.folders import repository

#: Variants to begin with: the baseline, and one of each method that the talk names.
FIRST = ("at", "trades-6", "mart-6", "awp-0.01", "self-supervision-4", "weight-decay-0.05", "label-noise-0.3")
#: Updates below which the baseline hardly leaves its initial weights.
UPDATES = 400

TEMPLATE = """\
# {experiment}: adversarial training, robustness and flatness on {path}
#
#   snakemake --cores all --configfile {file}
#
# What is not written here follows from data, epsilon and network (docs: config/README.md).
experiment: {experiment}

# Threat model: L-infinity ball of this radius, inputs in [0, 1]. 8/255 is usual for colour photographs.
epsilon: {epsilon}

data:
  name: npz
  path: {path}
  train: {train}            # of {all_train} training images
  unlabeled: {unlabeled}        # {pool}
  early_stopping: {early_stopping}   # the last of the {all_test} test images: to choose by
  test: {test}             # from their beginning: for the measures, looked at last

# {network_note}
model: {{name: {network}, width: {width}}}

# The baseline. Choose these on the images for early stopping alone: train `at`, look at the columns
# early_stopping_* of results/{experiment}/history.csv, change one value at a time.
training:
  epochs: {epochs}
  batch_size: {batch_size}
  learning_rate: {learning_rate}
  augmentation: {augmentation}

# Start with a few; `all` trains the 74 of the paper.
variants: [{variants}]
minimum_batch_size: 6

# All measures have defaults; name a block to change it, e.g. robustness: {{attack: {{restarts: 20}}}}
measures:
  robustness: {{test_examples: {measured_test}, train_examples: {measured_train}}}
  flatness: {{test_examples: {measured_test}, train_examples: {measured_train}}}
"""


def new_experiment(data: Path, file: Path, experiment: str, epsilon: str) -> str:
    """The YAML of an experiment on the images in `data` (see `read_npz`), to be written to `file`.

    Raises
    ------
    ConfigError
        If the data cannot be used, are too few, or a name or number is not allowed.
    """
    if not NAME.fullmatch(experiment):
        raise ConfigError(f"--name: {experiment!r} given; use letters, digits, '.', '_' and '-'")
    source = read_npz(data)
    colour = source["x_train"].shape[1] == 3
    radius = epsilon or ("8/255" if colour else "0.1")
    number = parse_number(radius)
    if not isinstance(number, int | float) or not 0 < number <= 1:
        raise ConfigError(f"--epsilon: {radius!r} given; expected a number above 0 and at most 1")
    values = {"experiment": experiment, "file": file, "path": data, "epsilon": radius}
    values |= _sizes(data, source) | _network(source, colour)
    text = TEMPLATE.format(**values)
    load_experiment(yaml.safe_load(text), repository() / "config/variants.yaml")
    return text


def _sizes(data: Path, source: Arrays) -> dict:
    """Sizes of the splits: two thirds of the test images for the measures, a third for early stopping."""
    train, test = len(source["y_train"]), len(source["y_test"])
    classes = int(source["y_train"].max()) + 1
    if min(train, test) < 6 * classes:
        raise ConfigError(
            f"{data}: {train} training and {test} test images of {classes} classes; "
            f"at least {6 * classes} of each are needed"
        )
    given = "x_unlabeled" in source
    pool = len(source["x_unlabeled"]) if given else train // 3
    early = min(500, test // 3)
    kept = train if given else train - pool
    measured = min(1000, test - early)
    return {
        **{"all_train": train, "all_test": test, "train": kept, "unlabeled": pool, "early_stopping": early},
        "test": test - early,
        "pool": "x_unlabeled of the file" if given else "further training images, whose labels are withheld",
        "measured_test": measured,
        "measured_train": min(measured, kept),
        **_training(kept),
    }


def _training(images: int) -> dict:
    """Batches and epochs: as the paper's where images suffice, else as many epochs as make some updates."""
    batch = 128 if images >= 5000 else 32
    updates = math.ceil(images / batch)
    epochs = min(150, max(30, math.ceil(UPDATES / updates)))
    return {"batch_size": batch, "epochs": epochs, "learning_rate": 0.05 if images >= 5000 else 0.1}


def _network(source: Arrays, colour: bool) -> dict:
    height, width = source["x_train"].shape[2:]
    side = min(height, width)
    small = side <= 14
    counts = np.bincount(source["y_train"])
    crop = side // 8
    return {
        "network": "small-resnet" if small else "resnet18",
        "width": 32 if small else (64 if len(source["y_train"]) >= 20_000 else 16),
        "network_note": f"Images of {height}x{width}, {len(counts)} classes of {counts.min()} to "
        f"{counts.max()} training images.",
        "augmentation": f"{{crop: {crop}, flip: true}}" if colour and not small else "{}",
        "variants": ", ".join(
            slug for slug in FIRST if height == width or not slug.startswith("self-supervision")
        ),
    }
