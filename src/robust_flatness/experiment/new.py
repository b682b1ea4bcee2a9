"""A commented experiment for a user's own data, with sizes that fit it."""

import math
from pathlib import Path

import numpy as np
import yaml

from robust_flatness.config.values import Epsilon, Name, parse
from robust_flatness.data.dataset import Arrays
from robust_flatness.data.npz import read_npz
from robust_flatness.data.splits import warn_of_missing_classes
from robust_flatness.errors import ConfigError
from robust_flatness.experiment.experiment import load_experiment
from robust_flatness.folders import repository

#: Variants to begin with: the baseline, and one of each method named in the talk.
FIRST = ("at", "trades-6", "mart-6", "awp-0.01", "self-supervision-4", "weight-decay-0.05", "label-noise-0.3")
#: Updates below which the baseline hardly leaves its initial weights.
UPDATES = 400

TEMPLATE = """\
# {experiment}: adversarial training, robustness and flatness on {path}
#
#   snakemake --cores all --configfile {file}
#
# Settings that are not given here follow from data, epsilon and network (config/README.md).
experiment: {experiment}

# Threat model: L-infinity ball of this radius, inputs in [0, 1]. 8/255 is usual for colour photographs.
# With norm: l2, an L2 ball.
epsilon: {epsilon}

data:
  name: npz
  path: {path}
  train: {train}            # of {all_train} training images
  unlabeled: {unlabeled}        # {pool}
  early_stopping: {early_stopping}   # the last of the {all_test} test images, to choose settings by
  test: {test}             # the first test images, for the measures

# Images of {height}x{width}, {classes} classes of {fewest} to {most} training images.
model: {{name: {network}, width: {width_of_network}}}

# The baseline. Choose these by the images for early stopping alone: train `at`, look at the columns
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
    """Return the YAML of an experiment on the images in `data` (see `read_npz`), to be written to `file`."""
    parse(Name, experiment, "--name")
    source = read_npz(data)
    radius = epsilon or ("8/255" if source["x_train"].shape[1] == 3 else "0.1")
    parse(Epsilon, radius, "--epsilon")
    values = {"experiment": experiment, "file": file, "path": data, "epsilon": radius}
    text = TEMPLATE.format(**values, **_settings(data, source))
    load_experiment(yaml.safe_load(text), repository() / "config/variants.yaml")
    return text


def _settings(data: Path, source: Arrays) -> dict:
    """Return the sizes of the splits: two thirds of the test images for the measures, a third for early
    stopping; a training as long as the paper's if images suffice, else of at least `UPDATES` updates; and a
    network and augmentation that fit the images."""
    train, test = len(source["y_train"]), len(source["y_test"])
    counts = np.bincount(source["y_train"])
    warn_of_missing_classes(source["y_train"], len(counts), str(data))
    least = 6 * len(counts)
    if min(train, test) < least:
        found = f"{train} training and {test} test images of {len(counts)} classes"
        raise ConfigError(f"{data}: {found}; at least {least} of each are needed")
    given = "x_unlabeled" in source
    pool = len(source["x_unlabeled"]) if given else train // 3
    early, kept = min(500, test // 3), train if given else train - pool
    measured, batch = min(1000, test - early), 128 if kept >= 5000 else 32
    channels, height, width = source["x_train"].shape[1:]
    side = min(height, width)
    small = side <= 14
    square_only = () if height == width else ("self-supervision-4",)  # it rotates images
    return {
        **{"all_train": train, "all_test": test, "train": kept, "unlabeled": pool, "early_stopping": early},
        **{"test": test - early, "measured_test": measured, "measured_train": min(measured, kept)},
        **{"classes": len(counts), "fewest": counts.min(), "most": counts.max(), "batch_size": batch},
        "pool": "x_unlabeled of the file" if given else "further training images, whose labels are withheld",
        "epochs": min(150, max(30, math.ceil(UPDATES / math.ceil(kept / batch)))),
        "learning_rate": 0.05 if kept >= 5000 else 0.1,
        **{"height": height, "width": width, "network": "small-resnet" if small else "resnet18"},
        "width_of_network": 32 if small else (64 if train >= 20_000 else 16),
        "augmentation": f"{{crop: {side // 8}, flip: true}}" if channels == 3 and not small else "{}",
        "variants": ", ".join(slug for slug in FIRST if slug not in square_only),
    }
